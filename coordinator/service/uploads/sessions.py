"""Uploads: from a signed manifest over resumable chunks to a receipt."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import structlog

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import IdentityError, NotFoundError, SchemaError, UnreachableError
from rootstock.common.identity.keys import SigningKey, verify
from rootstock.common.protocol import Plan, receipt_bytes
from rootstock.common.weights.manifest import (
    BlobEntry,
    Manifest,
    RefinementManifest,
    parse_manifest,
)
from rootstock.coordinator.paths import samples_area, signature_ref
from rootstock.coordinator.plan.heads import CurrentHeads
from rootstock.coordinator.registry import Receipt, Registry, Submission, Upload
from rootstock.coordinator.registry.uploads import LEASE_SECONDS
from rootstock.coordinator.service.messages import receipt_message
from rootstock.coordinator.service.reports import check_refinement
from rootstock.coordinator.service.uploads.blobs import blob_entries, blob_sizes, samples_of
from rootstock.coordinator.service.uploads.dedup import WORTHWHILE_BYTES, Stripped, TensorDedup
from rootstock.coordinator.service.uploads.gate import check_manifest
from rootstock.coordinator.service.uploads.partial import PartialUploads, same_blob
from rootstock.coordinator.service.uploads.slots import Slots
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

FIRST_MESSAGE_SECONDS = 30.0
"""The first message follows the call at once."""


class Uploads:
    """Takes manifests and blobs of sites.

    Parameters
    ----------
    incoming
        Holds blobs until their upload is committed.
    held
        Tells which tensors of a blob need not travel.
    readable
        Says which blobs a site may read: these it need not send.
    open_limit
        Uploads that a site may have open at once.
    byte_limit
        Bytes that the blobs of these may have.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: BlobStore,
        plan: Plan,
        heads: CurrentHeads,
        key: SigningKey,
        incoming: PartialUploads,
        held: TensorDedup,
        readable: Callable[[str, str], bool],
        open_limit: int,
        byte_limit: int,
    ) -> None:
        self._registry = registry
        self._store = store
        self._plan = plan
        self._heads = heads
        self._key = key
        self._incoming = incoming
        self._held = held
        self._readable = readable
        self._open_limit = open_limit
        self._byte_limit = byte_limit
        self._slots = Slots()
        self._commits: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = structlog.get_logger("uploads")

    async def begin(self, site: str, request: pb.BeginUploadRequest) -> pb.BeginUploadResponse:
        """Open or resume an upload; say what is missing, and from which offset.

        Raises
        ------
        RefusedError
            If the manifest breaks a rule that can be told without its blobs.
        IdentityError
            If it is another site's.
        UnreachableError
            If the site's quota is used up for now.
        """
        manifest = parse_manifest(request.manifest)
        upload = await asyncio.to_thread(self._open, site, manifest, request)
        if upload.receipt is not None:
            return pb.BeginUploadResponse(
                upload_id=upload.id, receipt=receipt_message(upload.receipt)
            )
        missing = []
        for entry in blob_entries(request.manifest).values():
            # A stream of before a cut may still be writing what had come: the newer call wins.
            await self._incoming.stop(site, entry.digest)
            blob = await asyncio.to_thread(
                self._missing, upload, entry, leaves_out=request.leaves_out
            )
            if blob is not None:
                missing.append(blob)
        self._log.info("begun", site=site, upload=upload.id, missing=len(missing))
        return pb.BeginUploadResponse(upload_id=upload.id, missing=missing)

    async def receive(
        self, site: str, messages: AsyncIterator[pb.UploadRequest]
    ) -> pb.UploadResponse:
        """Take the chunks of one blob.

        Raises
        ------
        RefusedError
            If a chunk breaks a rule, or the whole does not match its digest.
        UnreachableError
            If a newer stream takes this blob over, or too many streams are open.
        """
        # Before the first message: that one is in memory, too.
        with self._slots.taken(site):
            return await self._receive(site, messages)

    async def _receive(
        self, site: str, messages: AsyncIterator[pb.UploadRequest]
    ) -> pb.UploadResponse:
        try:
            first = await asyncio.wait_for(anext(messages), FIRST_MESSAGE_SECONDS)
        except (StopAsyncIteration, TimeoutError) as error:
            raise SchemaError(
                "the stream has no first message; it names the upload and the blob"
            ) from error
        upload = await asyncio.to_thread(self._owned, site, first.upload_id)
        entry = blob_entries(upload.manifest).get(first.digest)
        if entry is None:
            raise SchemaError(
                f"blob {first.digest[:80]!r} is not in the manifest of upload {upload.id}; "
                "send what BeginUpload says is missing"
            )
        digest, size = entry.digest, entry.size
        stripped = await asyncio.to_thread(self._held.decided, upload.id, entry)
        if first.stripped and stripped is None:
            raise UnreachableError(
                f"blob {digest} is to come as a whole now; begin the upload again"
            )
        await self._incoming.stop(site, digest)
        if await asyncio.to_thread(self._durable_offset, upload, entry) is None:
            sent = stripped.size if first.stripped and stripped is not None else size
            return pb.UploadResponse(digest=digest, durable_offset=sent)
        stream = same_blob(first, messages, upload.id)
        if first.stripped and stripped is not None:
            offset = await self._receive_stripped(site, stripped, stream)
        else:
            offset = await self._incoming.receive(site, digest, size, stream)
            if stripped is not None and offset == size:
                await asyncio.to_thread(self._held.refuse, upload.id, digest)
        await asyncio.to_thread(self._registry.uploads.touch, upload.id)
        return pb.UploadResponse(digest=digest, durable_offset=offset)

    async def _receive_stripped(
        self, site: str, stripped: Stripped, stream: AsyncIterator[pb.UploadRequest]
    ) -> int:
        upload_id, digest = stripped.upload_id, stripped.entry.digest

        def refuse() -> None:
            self._held.refuse(upload_id, digest)
            self._log.warning("not filled up", site=site, upload=upload_id, digest=digest)

        offset = await self._incoming.receive_stripped(
            site, stripped, stream, place_of=self._held.paths(stripped), on_refused=refuse
        )
        if offset == stripped.size:
            self._log.info(
                "filled up",
                site=site,
                upload=upload_id,
                digest=digest,
                travelled_bytes=stripped.size,
                held_bytes=stripped.held_bytes,
            )
        return offset

    async def commit(self, site: str, upload_id: str) -> Receipt:
        """Make everything durable, then record it and sign the receipt; again: the same receipt.

        Raises
        ------
        SchemaError
            If a blob is missing; names it.
        """
        lock = self._commits.setdefault(upload_id, asyncio.Lock())
        async with lock:
            return await asyncio.to_thread(self._commit, site, upload_id)

    async def sweep(self) -> None:
        """Remove the partial files of uploads whose lease is over."""
        await self._incoming.sweep(self._registry.uploads.live, LEASE_SECONDS)

    def progress(self, upload: Upload | Submission) -> tuple[int, int]:
        """Return how many bytes of an upload's blobs are here, and how many there are."""
        entries = blob_entries(upload.manifest).values()
        return (
            sum(self._here(upload, entry) for entry in entries),
            sum(entry.size for entry in entries),
        )

    def _open(self, site: str, manifest: Manifest, request: pb.BeginUploadRequest) -> Upload:
        if manifest.site != site:
            raise IdentityError(
                f"the manifest is of site '{manifest.site}', the call of '{site}'; a site ships "
                "its own nets only"
            )
        key = self._registry.sites.key_of(site) or b""
        verify(key, request.signature, request.manifest, what="the manifest")
        sizes = blob_sizes(request.manifest)
        known = self._registry.uploads.find(hashlib.sha256(request.manifest).hexdigest())
        if known is None:
            # What was begun or received under an earlier plan stays as it is.
            check_manifest(manifest, self._plan, self._heads())
            if isinstance(manifest, RefinementManifest):
                check_refinement(manifest, self._registry)
            for digest, size in sizes.items():
                if not (self._readable(site, digest) and self._store.has(digest)):
                    continue
                if (there := self._store.size(digest)) != size:
                    raise SchemaError(
                        f"blob {digest} has {there} bytes, the manifest says {size}; describe "
                        "the file that is sent"
                    )
        return self._registry.uploads.begin(
            manifest,
            request.manifest,
            request.signature,
            open_limit=self._open_limit,
            byte_limit=self._byte_limit,
        )

    def _store_of(self, upload: Upload | Submission, digest: str) -> BlobStore:
        """Return where a blob of an upload goes: samples into an area of their own."""
        if digest == samples_of(upload.manifest):
            return self._store.area(samples_area(upload.id))
        return self._store

    def _is_stored(self, upload: Upload | Submission, digest: str) -> bool:
        # Others' blobs do not count: to know a digest is not to have the blob.
        private = digest == samples_of(upload.manifest)
        readable = private or self._readable(upload.site, digest)
        return readable and self._store_of(upload, digest).has(digest)

    def _durable_offset(self, upload: Upload | Submission, entry: BlobEntry) -> int | None:
        """Return where to resume a blob; None if it is here as a whole."""
        if self._is_stored(upload, entry.digest):
            return None
        return self._incoming.durable_offset(upload.site, entry.digest, entry.size)

    def _missing(
        self, upload: Upload, entry: BlobEntry, *, leaves_out: bool
    ) -> pb.MissingBlob | None:
        """Say what is to come of a blob, and from which offset; None if it is here as a whole."""
        site, digest, size = upload.site, entry.digest, entry.size
        offset = self._durable_offset(upload, entry)
        if offset is None:
            return None
        blob = pb.MissingBlob(digest=digest, size=size, durable_offset=offset)
        stripped = self._held.decide(upload.id, entry) if leaves_out else None
        if stripped is not None:
            at = self._incoming.durable_offset(site, digest, stripped.size, stripped.name) or 0
            # Of what an older agent began to send as a whole, less may be left.
            if (size - offset) - (stripped.size - at) >= WORTHWHILE_BYTES:
                blob.durable_offset = at
                blob.held_tensors.extend(sorted(stripped.held))
        left_out = stripped.name if stripped is not None and blob.held_tensors else ""
        self._incoming.keep_only(site, digest, left_out)
        return blob

    def _here(self, upload: Upload | Submission, entry: BlobEntry) -> int:
        """Return how many bytes of a blob are here, those that need not travel included."""
        offset = self._durable_offset(upload, entry)
        if offset is None:
            return entry.size
        stripped = self._held.decided(upload.id, entry)
        if stripped is None:
            return offset
        site, digest = upload.site, entry.digest
        at = self._incoming.durable_offset(site, digest, stripped.size, stripped.name) or 0
        return max(offset, at + stripped.held_bytes)

    def _owned(self, site: str, upload_id: str) -> Upload:
        upload = self._registry.uploads.get(upload_id)
        if upload.site != site:
            raise NotFoundError(
                f"site '{site}' has no upload '{upload_id}'; begin it with its manifest"
            )
        return upload

    def _commit(self, site: str, upload_id: str) -> Receipt:
        upload = self._owned(site, upload_id)
        if upload.receipt is not None:
            return upload.receipt
        entries = blob_entries(upload.manifest)
        for entry in entries.values():
            if self._durable_offset(upload, entry) is not None:
                raise self._truncated(upload, entry)
        for digest, entry in entries.items():
            store = self._store_of(upload, digest)
            path = self._incoming.linked(site, digest)
            if path is not None:
                store.put_file(path, digest, verified=True, move=True)
            elif not store.renew(digest):  # collected since: nothing referred to it
                raise self._truncated(upload, entry)
        self._store.put_bytes(upload.manifest)
        # The store alone then proves where a module came from, without the database.
        signature = self._store.put_bytes(upload.signature)
        self._store.put_ref(signature_ref(upload.manifest_digest), signature)
        received_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        receipt = Receipt(
            manifest_digest=upload.manifest_digest,
            subject=upload.id,
            received_at=received_at,
            signature=self._key.sign(receipt_bytes(upload.manifest_digest, upload.id, received_at)),
        )
        recorded = self._registry.uploads.receive(upload.id, receipt)
        self._incoming.forget(site, entries)
        self._log.info(
            "received",
            site=site,
            upload=upload.id,
            manifest=upload.manifest_digest,
            total_bytes=sum(entry.size for entry in entries.values()),
            held_bytes=self._held.bytes_of(upload.id, entries.values()),
        )
        return recorded

    def _truncated(self, upload: Upload, entry: BlobEntry) -> SchemaError:
        return SchemaError(
            f"blob {entry.digest} is truncated: {self._here(upload, entry)} of {entry.size} bytes "
            "are here; begin the upload again to resume"
        )
