"""The server's side of an upload: the network and the hashing overlap, memory stays constant."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from rootstock.common.errors import UnreachableError
from rootstock.common.heap import keep_chunk_buffers
from rootstock.common.transport.chunks import SYNC_BYTES, Chunk, ChunkReceiver

CHUNKS_IN_MEMORY = 8
"""Chunks of all uploads together that are checked, written and hashed, or wait for that: at most
16 MiB. Each upload has one more, that waits for room."""


class ChunkMessage(Protocol):
    """The fields that UploadRequest and DownloadResponse have in common; see `Chunk`."""

    offset: int
    data: bytes
    crc32: int


async def receive(
    stream: AsyncIterable[ChunkMessage],
    receiver: ChunkReceiver,
    *,
    room: asyncio.Semaphore,
    idle_seconds: float = 120.0,
    sync_bytes: int = SYNC_BYTES,
) -> int:
    """Take a stream of chunks into a receiver, to the stream's end; return the durable offset.

    While one thread checks, writes and hashes a chunk and another flushes to the disk, the next
    chunks come in, as many as there is `room` for, which all uploads of a process share. However it
    ends, what came is flushed and the receiver closed; a blob that is complete at the stream's end
    is proved and moved to its target. Opening a receiver hashes what is there, so do that in a
    thread.
    """
    keep_chunk_buffers()
    loop = asyncio.get_running_loop()
    writer = _Writer(receiver, sync_bytes, lambda: loop.call_soon_threadsafe(room.release))
    writing = loop.run_in_executor(writer.pool, writer.run)
    ended = False
    try:
        async with asyncio.timeout(idle_seconds) as idle:
            async for message in stream:
                chunk = Chunk(message.offset, message.data, message.crc32)
                del message  # else its bytes are there twice
                idle.reschedule(None)  # the lab need not wait for this disk in haste
                await room.acquire()
                writer.put(chunk)
                del chunk
                if writer.failed:
                    break
                idle.reschedule(loop.time() + idle_seconds)
        ended = True
    except TimeoutError as error:
        raise UnreachableError(
            f"no chunk of {receiver.digest} came for {idle_seconds:g} s; {receiver.offset} of "
            f"{receiver.size} bytes are kept: begin the upload again to resume there"
        ) from error
    finally:
        # Whoever takes over may open the partial file again: never before this writer is done.
        writer.end(whole=ended)
        await _to_its_end(writing)
    return receiver.durable_offset


async def _to_its_end(work: asyncio.Future[None]) -> None:
    """Wait for a thread's work, through cancellations, which are raised once it is done."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        work.exception()  # seen: what became of the bytes is on the disk
        raise asyncio.CancelledError
    work.result()


class _Writer:
    """The thread that owns the receiver while chunks come in.

    It makes room again for every chunk that is put, also once it has failed.
    """

    def __init__(
        self, receiver: ChunkReceiver, sync_bytes: int, on_room: Callable[[], object]
    ) -> None:
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="receive")  # writes; flushes
        self.failed = False
        self._receiver = receiver
        self._sync_bytes = sync_bytes
        self._on_room = on_room
        self._chunks: queue.SimpleQueue[Chunk | bool] = queue.SimpleQueue()
        self._flush: Future[int] | None = None
        self._flushed = receiver.offset

    def put(self, chunk: Chunk) -> None:
        self._chunks.put(chunk)

    def end(self, *, whole: bool) -> None:
        self._chunks.put(whole)

    def run(self) -> None:
        try:
            try:
                whole = self._write_all()
                if self._flush is not None:
                    self._flush.result()
                if whole and self._receiver.complete:
                    self._receiver.finish()
            finally:
                self._receiver.leave()
        finally:
            self.pool.shutdown(wait=False)

    def _write_all(self) -> bool:
        """Write chunk after chunk; return whether the stream came to its end."""
        try:
            while isinstance(chunk := self._chunks.get(), Chunk):
                try:
                    self._receiver.append(*chunk)
                finally:
                    del chunk
                    self._on_room()
                self._flush_beside()
        except BaseException:
            self.failed = True
            while isinstance(self._chunks.get(), Chunk):
                self._on_room()
            raise
        return chunk

    def _flush_beside(self) -> None:
        if self._receiver.offset - self._flushed < self._sync_bytes:
            return
        if self._flush is not None:
            if not self._flush.done():
                return
            self._flush.result()  # raises what a broken disk said
        self._flushed = self._receiver.offset
        self._flush = self.pool.submit(self._receiver.sync)
