"""The server's side of an upload: the network and the hashing overlap, memory stays constant."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from rootstock.common.errors import UnreachableError
from rootstock.common.transport.chunks import SYNC_BYTES, Chunk, ChunkReceiver, keep_chunk_buffers

AHEAD = 4
"""Chunks that may wait for the disk: at most 8 MiB an upload."""


class ChunkMessage(Protocol):
    """The fields that UploadRequest and DownloadResponse have in common; see `Chunk`."""

    offset: int
    data: bytes
    crc32: int


async def receive(
    stream: AsyncIterable[ChunkMessage],
    receiver: ChunkReceiver,
    *,
    idle_seconds: float = 120.0,
    sync_bytes: int = SYNC_BYTES,
) -> int:
    """Take a stream of chunks into a receiver, to the stream's end; return the durable offset.

    While one thread checks, writes and hashes a chunk and another flushes to the disk, the next
    chunks come in, a few at most. However it ends, what came is flushed and the receiver closed; a
    blob that is complete at the stream's end is proved and moved to its target. Opening a receiver
    hashes what is there, so do that in a thread.
    """
    keep_chunk_buffers()
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(AHEAD)
    writer = _Writer(receiver, sync_bytes, lambda: loop.call_soon_threadsafe(room.release))
    writing = loop.run_in_executor(writer.pool, writer.run)
    ended = False
    try:
        async with asyncio.timeout(idle_seconds) as idle:
            async for message in stream:
                await room.acquire()
                if writer.failed:
                    break
                writer.put(Chunk(message.offset, message.data, message.crc32))
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
    """The thread that owns the receiver while chunks come in."""

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
                while isinstance(chunk := self._chunks.get(), Chunk):
                    self._receiver.append(*chunk)
                    del chunk
                    self._flush_beside()
                    self._on_room()
                if self._flush is not None:
                    self._flush.result()
                if chunk is True and self._receiver.complete:
                    self._receiver.finish()
            finally:
                self._receiver.leave()
        except BaseException:
            self.failed = True
            self._on_room()  # wakes the stream's side, if it waits
            raise
        finally:
            self.pool.shutdown(wait=False)

    def _flush_beside(self) -> None:
        if self._receiver.offset - self._flushed < self._sync_bytes:
            return
        if self._flush is not None:
            if not self._flush.done():
                return
            self._flush.result()  # raises what a broken disk said
        self._flushed = self._receiver.offset
        self._flush = self.pool.submit(self._receiver.sync)
