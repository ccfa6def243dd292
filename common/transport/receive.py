"""The server's side of an upload: the network and the hashing overlap, memory stays constant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from common.errors import UnreachableError
from common.transport.chunks import SYNC_BYTES, ChunkReceiver


class ChunkMessage(Protocol):
    """What UploadRequest and DownloadResponse have in common."""

    @property
    def offset(self) -> int:
        """Where the chunk starts."""
        ...

    @property
    def data(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def crc32(self) -> int:
        """Their CRC-32, as zlib computes it."""
        ...


async def receive(
    stream: AsyncIterable[ChunkMessage],
    receiver: ChunkReceiver,
    *,
    first: ChunkMessage | None = None,
    idle_seconds: float = 120.0,
    sync_bytes: int = SYNC_BYTES,
) -> int:
    """Take a stream of chunks into a receiver, to the stream's end.

    While a worker thread checks, writes and hashes one chunk, the next one comes in; another
    thread flushes to the disk. No more than two chunks are held. However it ends, what came
    is flushed and the receiver closed; a complete blob is proved and moved to its target.

    Parameters
    ----------
    stream
        The call's messages.
    receiver
        An open one; opening it hashes what is there, so do that in a thread.
    first
        The message that the caller has taken off the stream to see what it is for.
    idle_seconds
        How long nothing may come.
    sync_bytes
        Bytes between flushes.

    Returns
    -------
    int
        The durable offset: the blob's size if it is complete.

    Raises
    ------
    UnreachableError
        If nothing came for `idle_seconds`.
    RefusedError
        See `ChunkReceiver.append` and `ChunkReceiver.finish`.
    StorageError
        If the disk is full or read-only.
    """
    messages = aiter(stream)
    message = first
    flushed = receiver.offset
    work: asyncio.Future[None] | None = None
    flush: asyncio.Future[int] | None = None
    loop = asyncio.get_running_loop()
    # One thread, so that the jobs run in order, the closing last, even if this task is
    # cancelled twice.
    writer = ThreadPoolExecutor(1, thread_name_prefix="receive")
    try:
        while message is not None or (message := await _next(messages, idle_seconds, receiver)):
            if work is not None:
                await work
            work = loop.run_in_executor(
                writer, receiver.append, message.offset, message.data, message.crc32
            )
            message = None
            if receiver.offset - flushed >= sync_bytes and (flush is None or flush.done()):
                if flush is not None:
                    await flush  # raises what a broken disk said
                flushed = receiver.offset
                flush = loop.run_in_executor(None, receiver.sync)
        if work is not None:
            await work
        if flush is not None:
            await flush
        if receiver.complete:
            await loop.run_in_executor(writer, receiver.finish)
    finally:
        closing = loop.run_in_executor(writer, receiver.leave)
        writer.shutdown(wait=False)
        await closing
    return receiver.durable_offset


async def _next(
    messages: AsyncIterator[ChunkMessage], seconds: float, receiver: ChunkReceiver
) -> ChunkMessage | None:
    try:
        async with asyncio.timeout(seconds):
            return await anext(messages, None)
    except TimeoutError as error:
        raise UnreachableError(
            f"no chunk of {receiver.digest} came for {seconds:g} s; {receiver.offset} of "
            f"{receiver.size} bytes are kept: begin the upload again to resume there"
        ) from error
