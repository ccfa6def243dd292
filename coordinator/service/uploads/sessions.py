"""Uploads: from a signed manifest over resumable chunks to a receipt."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from weakref import WeakValueDictionary

import structlog

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import NotFoundError, SchemaError, UnreachableError
from rootstock.common.failpoints import failpoint
from rootstock.common.identity.keys import key_id
from rootstock.common.weights.manifest import BlobEntry, RefinementManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.merges.revoked import check_revoked
from rootstock.coordinator.paths import StatePaths, samples_area, signature_ref
from rootstock.coordinator.plan.heads import CurrentHeads
from rootstock.coordinator.registry import Receipt, Submission, Upload
from rootstock.coordinator.registry.quotas import LEASE_SECONDS, Quota
from rootstock.coordinator.service.messages import receipt_message
from rootstock.coordinator.service.reports import check_refinement
from rootstock.coordinator.service.uploads.dedup import WORTHWHILE_BYTES, TensorDedup, Transfer
from rootstock.coordinator.service.uploads.gate import (
    blob_entries,
    check_manifest,
    check_size,
    own_manifest,
    samples_of,
)
from rootstock.coordinator.service.uploads.partial import PartialUploads
from rootstock.coordinator.service.uploads.slots import Slots
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

FIRST_MESSAGE_SECONDS = 30.0
"""The first message follows the call at once."""


class UploadSessions:
    """Takes manifests and blobs of sites; a site need not send what it may read (`readable`)."""

    def __init__(
        self,
        context: CoordinatorContext,
        heads: CurrentHeads,
        readable: Callable[[str, str], bool],
    ) -> None:
        self._context = context
        self._uploads = context.registry.uploads
        self._heads = heads
        self._readable = readable
        self._dedup = TensorDedup(context)
        self._partial = PartialUploads(
            StatePaths(context.config).incoming, self._dedup, context.plan.limits.chunk_bytes
        )
        self._slots = Slots()
        server = context.config.server
        self._quota = Quota(**{each.name: getattr(server, each.name) for each in fields(Quota)})
        self._commits: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = structlog.get_logger("uploads")

    async def begin(self, site: str, request: pb.BeginUploadRequest) -> pb.BeginUploadResponse:
        """Open or resume an upload; say what is missing, and from which offset.

        RefusedError if the manifest breaks a rule that can be checked without its blobs,
        IdentityError if it is another site's, UnreachableError if the quota or the disk is used up.
        """
        upload = await asyncio.to_thread(self._open, site, request)
        failpoint("upload.begun")
        if upload.receipt is not None:
            await asyncio.to_thread(self._forget, site, upload)
            logged = await asyncio.to_thread(self._context.log.receipt, upload.id)
            return pb.BeginUploadResponse(
                upload_id=upload.id, receipt=receipt_message(upload.receipt, logged)
            )
        missing = []
        for entry in blob_entries(request.manifest).values():
            # A stream of before a cut may still be writing what had arrived: the newer call wins.
            await self._partial.stop(site, entry.digest)
            blob = await asyncio.to_thread(
                self._missing, upload, entry, leaves_out=request.leaves_out
            )
            if blob is not None:
                missing.append(blob)
        if missing:
            to_come = sum(blob.size - blob.durable_offset for blob in missing)
            stays_free = self._context.config.server.min_free_bytes
            await asyncio.to_thread(self._partial.require_room, to_come, stays_free)
        self._log.info("upload.begun", site=site, upload=upload.id, missing=len(missing))
        return pb.BeginUploadResponse(upload_id=upload.id, missing=missing)

    async def receive(
        self, site: str, messages: AsyncIterator[pb.UploadRequest]
    ) -> pb.UploadResponse:
        """Take the chunks of one blob.

        RefusedError if a chunk breaks a rule, or the whole does not match its digest;
        UnreachableError if a newer stream supersedes this one, too many are open, or this one is
        slow and another lab waits.
        """
        # Before the first message: that one is in memory, too.
        return await self._slots.run(site, messages, lambda counted: self._receive(site, counted))

    async def _receive(
        self, site: str, messages: AsyncIterator[pb.UploadRequest]
    ) -> pb.UploadResponse:
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                first = await anext(messages)
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
        decided = await asyncio.to_thread(self._dedup.decided, upload.id, entry)
        if first.stripped and not decided.held:
            raise UnreachableError(
                f"the coordinator can no longer deduplicate blob {entry.digest}; call BeginUpload "
                "again and send it in full"
            )
        transfer = decided if first.stripped else Transfer(upload.id, entry)
        await self._partial.stop(site, entry.digest)
        if await asyncio.to_thread(self._durable_offset, upload, transfer) is None:
            return pb.UploadResponse(digest=entry.digest, durable_offset=transfer.size)
        stream = _OneBlob(first, messages, upload.id)
        del first  # its bytes
        offset = await self._partial.receive(site, transfer, stream)
        if decided.held and not transfer.held and offset == transfer.size:
            await asyncio.to_thread(self._dedup.refuse, decided)
        await asyncio.to_thread(self._uploads.touch, upload.id)
        return pb.UploadResponse(digest=entry.digest, durable_offset=offset)

    async def commit(self, site: str, upload_id: str) -> Receipt:
        """Make everything durable, then record it and sign the receipt; again: the same receipt.

        SchemaError if a blob is missing; names it.
        """
        lock = self._commits.setdefault(upload_id, asyncio.Lock())
        async with lock:
            return await asyncio.to_thread(self._commit, site, upload_id)

    async def sweep(self) -> None:
        """Remove the partial files of uploads whose lease is over."""
        await self._partial.sweep(self._uploads.live, LEASE_SECONDS)

    def progress(self, upload: Upload | Submission) -> tuple[int, int]:
        """Return how many bytes of an upload's blobs are here, and how many there are."""
        entries = blob_entries(upload.manifest).values()
        return (
            sum(self._here(upload, entry) for entry in entries),
            sum(entry.size for entry in entries),
        )

    def _open(self, site: str, request: pb.BeginUploadRequest) -> Upload:
        context = self._context
        net = key_id(context.key.public_key)
        manifest = own_manifest(context.registry, site, request, net)
        entries = blob_entries(request.manifest).values()
        if self._uploads.find(hashlib.sha256(request.manifest).hexdigest()) is None:
            # What was begun or received under an earlier plan stays as it is.
            check_manifest(manifest, context.plan, self._heads())
            check_revoked(manifest, request.manifest, context.config.admission.revoked)
            if isinstance(manifest, RefinementManifest):
                check_refinement(manifest, context.registry)
            for entry in entries:
                if self._readable(site, entry.digest):
                    check_size(entry, context.store)
        return self._uploads.begin(
            manifest,
            request.manifest,
            request.signature,
            open_limit=context.config.server.max_open_uploads_per_site,
            byte_limit=context.config.server.max_open_bytes_per_site,
            quota=self._quota,
        )

    def _store_of(self, upload: Upload | Submission, digest: str) -> BlobStore:
        """Return where a blob of an upload goes: samples into an area of their own."""
        if digest == samples_of(upload.manifest):
            return self._context.store.area(samples_area(upload.id))
        return self._context.store

    def _is_stored(self, upload: Upload | Submission, digest: str) -> bool:
        # Others' blobs do not count: to know a digest is not to have the blob.
        private = digest == samples_of(upload.manifest)
        readable = private or self._readable(upload.site, digest)
        return readable and self._store_of(upload, digest).has(digest)

    def _durable_offset(self, upload: Upload | Submission, transfer: Transfer) -> int | None:
        """Return where to resume a blob; None if it is here as a whole."""
        if self._is_stored(upload, transfer.digest):
            return None
        return self._partial.durable_offset(upload.site, transfer)

    def _missing(
        self, upload: Upload, entry: BlobEntry, *, leaves_out: bool
    ) -> pb.MissingBlob | None:
        """Say what of a blob is to be sent, and from which offset; None if it is here."""
        transfer = Transfer(upload.id, entry)
        offset = self._durable_offset(upload, transfer)
        if offset is None:
            return None
        if leaves_out:
            stripped = self._dedup.decide(upload.id, entry)
            sent = self._partial.durable_offset(upload.site, stripped) or 0
            # Of what an older agent began to send as a whole, less may be left.
            if (transfer.size - offset) - (stripped.size - sent) >= WORTHWHILE_BYTES:
                transfer, offset = stripped, sent
        self._partial.keep_only(upload.site, transfer)
        return pb.MissingBlob(
            digest=entry.digest,
            size=entry.size,
            durable_offset=offset,
            held_tensors=sorted(transfer.held),
        )

    def _here(self, upload: Upload | Submission, entry: BlobEntry) -> int:
        """Return how many bytes of a blob are here, those that need not travel included."""
        offset = self._durable_offset(upload, Transfer(upload.id, entry))
        if offset is None:
            return entry.size
        decided = self._dedup.decided(upload.id, entry)
        sent = self._partial.durable_offset(upload.site, decided) or 0
        return max(offset, sent + decided.held_bytes)

    def _owned(self, site: str, upload_id: str) -> Upload:
        upload = self._uploads.get(upload_id)
        if upload.site != site:
            raise NotFoundError(
                f"site '{site}' has no upload '{upload_id}'; begin it with its manifest"
            )
        return upload

    def _commit(self, site: str, upload_id: str) -> Receipt:
        upload = self._owned(site, upload_id)
        if upload.receipt is not None:
            self._forget(site, upload)
            return upload.receipt
        entries = blob_entries(upload.manifest)
        for entry in entries.values():
            if self._durable_offset(upload, Transfer(upload_id, entry)) is not None:
                raise self._truncated(upload, entry)
        for digest, entry in entries.items():
            store = self._store_of(upload, digest)
            path = self._partial.linked(site, digest)
            if path is not None:
                store.put_file(path, digest, verified=True, move=True)
            elif not store.renew(digest):  # collected since: nothing referred to it
                raise self._truncated(upload, entry)
        store, manifest = self._context.store, upload.manifest_digest
        store.put_bytes(upload.manifest)
        # The store alone then proves where a module is from, without the database.
        store.put_ref(signature_ref(manifest), store.put_bytes(upload.signature))
        failpoint("upload.stored")
        receipt = self._uploads.receive(upload.id, self._context.receipt(manifest, upload.id))
        failpoint("upload.received")
        self._partial.forget(site, entries)
        self._log.info(
            "upload.received",
            site=site,
            upload=upload.id,
            manifest=manifest,
            total_bytes=sum(entry.size for entry in entries.values()),
            held_bytes=self._dedup.bytes_of(upload.id, entries.values()),
        )
        return receipt

    def _forget(self, site: str, upload: Upload) -> None:
        """Remove what a coordinator that was killed as it gave a receipt has left of the upload."""
        entries = blob_entries(upload.manifest)
        self._partial.forget(site, (each for each in entries if not self._uploads.live(site, each)))

    def _truncated(self, upload: Upload, entry: BlobEntry) -> SchemaError:
        return SchemaError(
            f"blob {entry.digest} is truncated: {self._here(upload, entry)} of {entry.size} bytes "
            "are here; begin the upload again to resume"
        )


class _OneBlob:
    """A stream's messages, all of which must be of the blob that the first one names.

    Keeps none of them: a generator would, for as long as nobody asks for the next.
    """

    def __init__(
        self, first: pb.UploadRequest, rest: AsyncIterator[pb.UploadRequest], upload_id: str
    ) -> None:
        self._first: pb.UploadRequest | None = first
        self._rest = rest
        self._digest, self._upload_id = first.digest, upload_id

    def __aiter__(self) -> _OneBlob:
        return self

    async def __anext__(self) -> pb.UploadRequest:
        first, self._first = self._first, None
        if first is not None:
            return first
        message = await anext(self._rest)
        of_another = message.upload_id not in ("", self._upload_id)
        if of_another or message.digest not in ("", self._digest):
            raise SchemaError(
                f"one stream sends one blob ({self._digest} of {self._upload_id}); open another "
                f"stream for {message.digest[:80]!r}"
            )
        return message
