"""Incoming blobs: partial files, and the one stream that may write to each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from common.artifacts.store import check_digest
from common.errors import SchemaError, UnreachableError
from common.files import storage_errors
from common.transport.chunks import ChunkReceiver
from common.transport.receive import receive
from protos.rootstock.federation.v1 import federation_pb2 as pb

IDLE_SECONDS = 120.0
"""A stream on which nothing comes for this long is given up; the upload stays, to be resumed."""


class Incoming:
    """Blobs on their way in: `<root>/<site>/<digest>.part`, without `.part` once proved.

    Parameters
    ----------
    root
        The folder. One below it for each site, so that none can touch what another is sending.
    max_chunk_bytes
        The cap on one chunk.
    """

    def __init__(self, root: Path, max_chunk_bytes: int) -> None:
        self._root = root
        self._max_chunk_bytes = max_chunk_bytes
        self._streams: dict[Path, asyncio.Task[int]] = {}
        self._taken_over: set[asyncio.Task[int]] = set()
        self._sweeping = asyncio.Lock()

    def whole(self, site: str, digest: str) -> Path | None:
        """Return the file of a blob that has come as a whole and matched its digest."""
        path = self._path(site, digest)
        return path if path.is_file() else None

    def durable_offset(self, site: str, digest: str, size: int) -> int | None:
        """Return where to resume a blob; None if it is here as a whole."""
        path = self._path(site, digest)
        if path.is_file():
            return None
        part = _part(path)
        offset = part.stat().st_size if part.is_file() else 0
        if offset > size:
            # Left by a manifest that gave this digest another size; only one can be true.
            with storage_errors(part):
                part.unlink()
            return 0
        return offset

    async def stop(self, site: str, digest: str) -> None:
        """End the stream that still writes a blob, if there is one: the newer call wins.

        After a cut the older call can be alive here for as long as keepalive takes to notice.
        """
        path = self._path(site, digest)
        # Whoever begins has renewed the lease before: what a sweep takes after this is another's.
        async with self._sweeping:
            pass
        # Again after each: of several newer calls the last one wins.
        while (job := self._streams.get(path)) is not None and not job.done():
            self._taken_over.add(job)
            job.cancel()
            await asyncio.wait([job])

    async def receive(
        self, site: str, digest: str, size: int, stream: AsyncIterator[pb.UploadRequest]
    ) -> int:
        """Take a blob's chunks to the stream's end; return the durable offset.

        Raises
        ------
        UnreachableError
            If a newer stream takes over: the upload is as good as before.
        RefusedError, StorageError, UnreachableError
            See `common.transport.receive.receive`.
        """
        await self.stop(site, digest)
        path = self._path(site, digest)
        job = asyncio.ensure_future(self._write(path, digest, size, stream))
        self._streams[path] = job
        try:
            return await job
        except asyncio.CancelledError:
            if job in self._taken_over:
                raise UnreachableError(
                    f"a newer stream of blob {digest} took over; begin the upload again to resume"
                ) from None
            raise
        finally:
            self._taken_over.discard(job)
            if self._streams.get(path) is job:
                del self._streams[path]

    async def sweep(self, live: Callable[[str, str], bool], lease_seconds: float) -> None:
        """Remove partial files that nothing has touched for a lease; they can be sent anew.

        Parameters
        ----------
        live
            Says of a site and a digest whether an open upload within its lease waits for it.
        lease_seconds
            How old a file must be.
        """
        for part in await asyncio.to_thread(lambda: sorted(self._root.glob("*/*.part"))):
            site, path = part.parent.name, part.with_suffix("")
            async with self._sweeping:
                if path not in self._streams:
                    await asyncio.to_thread(_remove_stale, part, site, live, lease_seconds)

    async def _write(
        self, path: Path, digest: str, size: int, stream: AsyncIterator[pb.UploadRequest]
    ) -> int:
        # Hashes what is there, so in a thread; a cancelled call must not leave the file open.
        opening = asyncio.ensure_future(
            asyncio.to_thread(
                ChunkReceiver,
                _part(path),
                path,
                digest=digest,
                size=size,
                max_chunk_bytes=self._max_chunk_bytes,
            )
        )
        try:
            receiver = await asyncio.shield(opening)
        except asyncio.CancelledError:
            (await opening).leave()
            raise
        return await receive(stream, receiver, idle_seconds=IDLE_SECONDS)

    def _path(self, site: str, digest: str) -> Path:
        return self._root / site / check_digest(digest)


async def same_blob(
    first: pb.UploadRequest, rest: AsyncIterator[pb.UploadRequest], upload_id: str
) -> AsyncIterator[pb.UploadRequest]:
    """Yield a stream's messages, all of which must be of the blob that the first one names."""
    yield first
    async for message in rest:
        if message.digest not in ("", first.digest) or message.upload_id not in ("", upload_id):
            raise SchemaError(
                f"one stream sends one blob ({first.digest} of {upload_id}); open another stream "
                f"for {message.digest[:80]!r}"
            )
        yield message


def _remove_stale(
    part: Path, site: str, live: Callable[[str, str], bool], lease_seconds: float
) -> None:
    with storage_errors(part):
        old = part.is_file() and part.stat().st_mtime <= time.time() - lease_seconds
        if old and not live(site, part.stem):
            part.unlink()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
