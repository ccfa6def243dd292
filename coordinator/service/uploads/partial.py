"""Partial uploads: files that grow, and the one stream that may write to each."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rootstock.common.artifacts.store import check_digest
from rootstock.common.errors import BusyError, RefusedError, UnreachableError
from rootstock.common.files import make_folder, storage_errors
from rootstock.common.transport.chunks import ChunkReceiver
from rootstock.common.transport.receive import CHUNKS_IN_MEMORY, ChunkMessage, receive
from rootstock.coordinator.service.uploads.dedup import TensorDedup, Transfer

IDLE_SECONDS = 120.0
"""A stream on which nothing arrives for this long is given up; the upload stays, to be resumed."""

DIGEST_DIGITS = 64
"""Every file's name begins with the digest of its blob."""

_OWN_NAME = re.compile(r"[0-9a-f]{64}([-.].*)?")
"""What files of blobs on their way in are called; an operator's beside them are left alone."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # of a file system without second names


class StrippedReceiver(ChunkReceiver):
    """Takes a blob without the tensors that the net has, and fills it up at the end."""

    def __init__(
        self,
        part: Path,
        target: Path,
        *,
        transfer: Transfer,
        dedup: TensorDedup,
        max_chunk_bytes: int,
    ) -> None:
        digest, size = transfer.digest, transfer.size
        super().__init__(part, target, digest=digest, size=size, max_chunk_bytes=max_chunk_bytes)
        self._transfer = transfer
        self._dedup = dedup

    def finish(self) -> Path:
        """Fill the blob up, prove it and move it to the target, durably.

        If bytes are missing the partial file stays; if no whole can be made of it, it is deleted.
        """
        self._require_complete()
        self.sync()
        try:
            self._dedup.fill_up(self._transfer, self.part, self.target)
        except RefusedError:
            self.drop()
            raise
        self.drop()
        return self.target


class PartialUploads:
    """Blobs on their way in: `<root>/<site>/<digest>.part`, without `.part` once proved.

    What is sent without tensors that the net has is `<digest>-<set of tensors>.part`. A folder for
    each site, so that none can touch what another is sending.
    """

    def __init__(self, root: Path, dedup: TensorDedup, max_chunk_bytes: int) -> None:
        self._root = root
        self._dedup = dedup
        self._max_chunk_bytes = max_chunk_bytes
        self._streams: dict[Path, asyncio.Task[int]] = {}
        self._superseded: set[asyncio.Task[int]] = set()
        self._sweeping = asyncio.Lock()
        self._room = asyncio.Semaphore(CHUNKS_IN_MEMORY)

    def linked(self, site: str, digest: str) -> Path | None:
        """Return a second name of the file of a blob that is proved, to be moved; None: it is not.

        The first name stays until `forget`: after a crash in between, it still proves that this
        site has sent the blob.
        """
        path = self._path(site, digest)
        if not path.is_file():
            return None
        link = path.with_name(path.name + ".stored")
        with storage_errors(path):
            link.unlink(missing_ok=True)
            try:
                link.hardlink_to(path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return path
        return link

    def forget(self, site: str, digests: Iterable[str]) -> None:
        """Remove the files of blobs that are stored and have their receipt."""
        for digest in digests:
            path = self._path(site, digest)
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def durable_offset(self, site: str, transfer: Transfer) -> int | None:
        """Return where to resume a blob; None if it is here as a whole."""
        path = self._path(site, transfer.digest)
        if path.is_file():
            return None
        part = _part(path, transfer)
        offset = part.stat().st_size if part.is_file() else 0
        if offset > transfer.size:
            # Left by a manifest that gave this digest another size; only one can be true.
            with storage_errors(part):
                part.unlink()
            return 0
        return offset

    def require_room(self, size: int, stays_free: int) -> None:
        """Raise BusyError if so many more bytes leave less free on the disk."""
        make_folder(self._root)
        with storage_errors(self._root):
            free = shutil.disk_usage(self._root).free
        if free < size + stays_free:
            raise BusyError(
                f"the coordinator's disk has {free} bytes free, {size} are to come and "
                f"{stays_free} stay free (server.min_free_bytes); try again when its operator has "
                "made room"
            )

    def keep_only(self, site: str, transfer: Transfer) -> None:
        """Remove partial files of a blob with other tensors left out: one is resumed."""
        path = self._path(site, transfer.digest)
        for part in path.parent.glob(f"{path.name}*.part"):
            if part != _part(path, transfer):
                with storage_errors(part):
                    part.unlink(missing_ok=True)

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
            self._superseded.add(job)
            job.cancel()
            await asyncio.wait([job])

    async def receive(
        self, site: str, transfer: Transfer, stream: AsyncIterator[ChunkMessage]
    ) -> int:
        """Take a blob's chunks to the stream's end; return the durable offset.

        UnreachableError if a newer stream of the blob supersedes this one: what was sent is kept.
        """
        await self.stop(site, transfer.digest)
        path = self._path(site, transfer.digest)
        job = asyncio.ensure_future(self._write(path, transfer, stream))
        self._streams[path] = job
        try:
            return await job
        except asyncio.CancelledError:
            if job in self._superseded:
                raise UnreachableError(
                    f"a newer stream of blob {transfer.digest} superseded this one; begin the "
                    "upload again to resume"
                ) from None
            raise
        finally:
            self._superseded.discard(job)
            if self._streams.get(path) is job:
                del self._streams[path]

    async def _write(
        self, path: Path, transfer: Transfer, stream: AsyncIterator[ChunkMessage]
    ) -> int:
        # Hashes what is there, so in a thread; a cancelled call must not leave the file open.
        opening = asyncio.ensure_future(asyncio.to_thread(self._open, path, transfer))
        try:
            receiver = await asyncio.shield(opening)
        except asyncio.CancelledError:
            (await opening).leave()
            raise
        return await receive(stream, receiver, room=self._room, idle_seconds=IDLE_SECONDS)

    def _open(self, path: Path, transfer: Transfer) -> ChunkReceiver:
        part, limit = _part(path, transfer), self._max_chunk_bytes
        if transfer.held:
            return StrippedReceiver(
                part, path, transfer=transfer, dedup=self._dedup, max_chunk_bytes=limit
            )
        digest, size = transfer.digest, transfer.size
        return ChunkReceiver(part, path, digest=digest, size=size, max_chunk_bytes=limit)

    async def sweep(self, live: Callable[[str, str], bool], lease_seconds: float) -> None:
        """Remove files that nothing has touched for a lease; their blobs can be sent anew.

        `live` says of a site and a digest whether an open upload within its lease waits for it.
        """
        for part in await asyncio.to_thread(lambda: sorted(self._root.glob("*/*"))):
            if _OWN_NAME.fullmatch(part.name) is None:
                continue
            site, digest = part.parent.name, part.name[:DIGEST_DIGITS]
            async with self._sweeping:
                if part.with_name(digest) not in self._streams:
                    await asyncio.to_thread(_remove_stale, part, site, live, lease_seconds)

    def _path(self, site: str, digest: str) -> Path:
        return self._root / site / check_digest(digest)


def _remove_stale(
    part: Path, site: str, live: Callable[[str, str], bool], lease_seconds: float
) -> None:
    with storage_errors(part), suppress(FileNotFoundError):
        old = part.stat().st_mtime <= time.time() - lease_seconds
        if old and not live(site, part.name[:DIGEST_DIGITS]):
            part.unlink()


def _part(path: Path, transfer: Transfer) -> Path:
    name = f"{path.name}-{transfer.name}" if transfer.held else path.name
    return path.with_name(f"{name}.part")
