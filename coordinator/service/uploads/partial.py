"""Incoming blobs: partial files, and the one stream that may write to each."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rootstock.common.artifacts.store import check_digest
from rootstock.common.errors import RefusedError, SchemaError, UnreachableError
from rootstock.common.files import storage_errors
from rootstock.common.transport.chunks import ChunkReceiver
from rootstock.common.transport.dedup import Place, fill_up
from rootstock.common.transport.receive import receive
from rootstock.coordinator.service.uploads.dedup import Stripped
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

IDLE_SECONDS = 120.0
"""A stream on which nothing comes for this long is given up; the upload stays, to be resumed."""

DIGEST_DIGITS = 64
"""Every file's name begins with the digest of its blob."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # of a file system without second names


class StrippedReceiver(ChunkReceiver):
    """Takes a blob without the tensors that are held here, and fills it up at the end.

    Parameters
    ----------
    part, target, max_chunk_bytes
        See `ChunkReceiver`.
    stripped
        What comes, and what is left out.
    place_of
        Returns where the bytes of a tensor that was left out stand.
    on_refused
        Called before a partial file is dropped that no whole could be made of: the blob must not
        come in this way again.
    """

    def __init__(
        self,
        part: Path,
        target: Path,
        *,
        stripped: Stripped,
        place_of: Callable[[str], Place],
        on_refused: Callable[[], None],
        max_chunk_bytes: int,
    ) -> None:
        super().__init__(
            part,
            target,
            digest=stripped.entry.digest,
            size=stripped.size,
            max_chunk_bytes=max_chunk_bytes,
        )
        self._stripped = stripped
        self._place_of = place_of
        self._on_refused = on_refused

    def finish(self) -> Path:
        """Fill the blob up, prove it and move it to the target, durably.

        Raises
        ------
        SchemaError
            If bytes are missing: the partial file stays. If the header is not what the manifest
            says: it is gone.
        IntegrityError
            If the SHA-256 is another one; the partial file is gone, to be sent as a whole.
        """
        self._require_complete()
        self.sync()
        entry, held = self._stripped.entry, self._stripped.held
        try:
            fill_up(self.part, self.target, entry, held, self._place_of)
        except RefusedError:
            self._on_refused()
            self.drop()
            raise
        self.drop()
        return self.target


class PartialUploads:
    """Blobs on their way in: `<root>/<site>/<digest>.part`, without `.part` once proved.

    What comes without tensors that are held here is `<digest>-<set of tensors>.part`.

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

    def durable_offset(self, site: str, digest: str, size: int, left_out: str = "") -> int | None:
        """Return where to resume a blob; None if it is here as a whole.

        Parameters
        ----------
        site, digest
            Whose, and which.
        size
            Bytes that are to come.
        left_out
            `Stripped.name`; empty: nothing is left out.
        """
        path = self._path(site, digest)
        if path.is_file():
            return None
        part = _part(path, left_out)
        offset = part.stat().st_size if part.is_file() else 0
        if offset > size:
            # Left by a manifest that gave this digest another size; only one can be true.
            with storage_errors(part):
                part.unlink()
            return 0
        return offset

    def keep_only(self, site: str, digest: str, left_out: str = "") -> None:
        """Remove partial files of a blob that came with other tensors left out: one is resumed."""
        path = self._path(site, digest)
        kept = _part(path, left_out)
        for part in (_part(path), *path.parent.glob(f"{digest}-*.part")):
            if part != kept:
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
            See `rootstock.common.transport.receive.receive`.
        """
        part, target = _part(self._path(site, digest)), self._path(site, digest)

        def opened() -> ChunkReceiver:
            return ChunkReceiver(
                part, target, digest=digest, size=size, max_chunk_bytes=self._max_chunk_bytes
            )

        return await self._receive(site, digest, opened, stream)

    async def receive_stripped(
        self,
        site: str,
        stripped: Stripped,
        stream: AsyncIterator[pb.UploadRequest],
        *,
        place_of: Callable[[str], Place],
        on_refused: Callable[[], None],
    ) -> int:
        """Take a blob without tensors that are held here; see `receive` and `StrippedReceiver`."""
        digest = stripped.entry.digest
        path = self._path(site, digest)

        def opened() -> ChunkReceiver:
            return StrippedReceiver(
                _part(path, stripped.name),
                path,
                stripped=stripped,
                place_of=place_of,
                on_refused=on_refused,
                max_chunk_bytes=self._max_chunk_bytes,
            )

        return await self._receive(site, digest, opened, stream)

    async def _receive(
        self,
        site: str,
        digest: str,
        opened: Callable[[], ChunkReceiver],
        stream: AsyncIterator[pb.UploadRequest],
    ) -> int:
        await self.stop(site, digest)
        path = self._path(site, digest)
        job = asyncio.ensure_future(_write(opened, stream))
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
        """Remove files that nothing has touched for a lease; their blobs can be sent anew.

        Parameters
        ----------
        live
            Says of a site and a digest whether an open upload within its lease waits for it.
        lease_seconds
            How old a file must be.
        """
        for part in await asyncio.to_thread(lambda: sorted(self._root.glob("*/*"))):
            site, digest = part.parent.name, part.name[:DIGEST_DIGITS]
            async with self._sweeping:
                if part.with_name(digest) not in self._streams:
                    await asyncio.to_thread(_remove_stale, part, site, live, lease_seconds)

    def _path(self, site: str, digest: str) -> Path:
        return self._root / site / check_digest(digest)


async def _write(
    opened: Callable[[], ChunkReceiver], stream: AsyncIterator[pb.UploadRequest]
) -> int:
    # Hashes what is there, so in a thread; a cancelled call must not leave the file open.
    opening = asyncio.ensure_future(asyncio.to_thread(opened))
    try:
        receiver = await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening).leave()
        raise
    return await receive(stream, receiver, idle_seconds=IDLE_SECONDS)


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
    with storage_errors(part), suppress(FileNotFoundError):
        old = part.stat().st_mtime <= time.time() - lease_seconds
        if old and not live(site, part.name[:DIGEST_DIGITS]):
            part.unlink()


def _part(path: Path, left_out: str = "") -> Path:
    return path.with_name(f"{path.name}-{left_out}.part" if left_out else f"{path.name}.part")
