"""Uploads: a manifest that a site began to ship, until the receipt that makes it durable."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from rootstock.common.errors import BusyError, LimitError, NotFoundError
from rootstock.common.weights.manifest import Manifest, TeacherManifest, parse_manifest
from rootstock.coordinator.growth.states import SubmissionState, check_submission
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.quotas import (
    LEASE_SECONDS,
    Quota,
    require_few_merges,
    require_room,
)
from rootstock.coordinator.registry.records import HeldAt, Receipt, Upload, UploadReferences, record
from rootstock.coordinator.registry.tables import SubmissionRow, UploadBlobRow, UploadRow, take


class Uploads(Subject):
    """The uploads table, and the submissions that teacher nets' uploads create."""

    def begin(
        self,
        manifest: Manifest,
        document: bytes,
        signature: bytes,
        *,
        open_limit: int,
        byte_limit: int | None = None,
        quota: Quota | None = None,
    ) -> Upload:
        """Open the upload of a manifest, or find it if it was begun before.

        A teacher net's upload creates the submission of the same id, in state `receiving`.
        `document` is the bytes that the manifest was read from, `signature` the site's over them,
        verified by the caller. A site may have `open_limit` uploads open at once, whose blobs have
        `byte_limit` bytes: LimitError if the manifest alone has more, BusyError if there may be
        room later, or a `quota` is used up.
        """
        digest = hashlib.sha256(document).hexdigest()
        now = self._clock()
        with self._database.write() as session:
            row = session.scalar(select(UploadRow).where(UploadRow.manifest_digest == digest))
            lease = now - LEASE_SECONDS
            size = sum(_sizes(manifest).values())
            if row is None and quota is not None:
                require_room(session, manifest.site, size, quota, now)
            if row is None or (row.receipt is None and row.touched_at <= lease):
                self._check_quota(session, manifest, open_limit, byte_limit, lease)
                if quota is not None and isinstance(manifest, TeacherManifest):
                    require_few_merges(session, manifest.site, quota.max_open_merges_per_site)
            if row is not None:
                row.touched_at = now
                if row.receipt is None:
                    row.signature = signature  # the site may have joined again with another key
                return record(Upload, row)
            kind = "submission" if isinstance(manifest, TeacherManifest) else "refinement"
            row = UploadRow(
                id=f"{kind[:3]}-{take(session, kind):04d}",
                site=manifest.site,
                kind=manifest.kind,
                manifest_digest=digest,
                manifest=document,
                signature=signature,
                evaluation_id=getattr(manifest, "evaluation", None),
                size=size,
                created_at=now,
                touched_at=now,
                received_at=None,
                receipt_signature=None,
            )
            session.add(row)
            session.flush()
            blobs = {entry.digest for entry in manifest.blobs()}
            session.add_all(UploadBlobRow(upload_id=row.id, digest=blob) for blob in blobs)
            if isinstance(manifest, TeacherManifest):
                session.add(
                    SubmissionRow(
                        id=row.id,
                        category=manifest.category,
                        state=SubmissionState.RECEIVING,
                        reason="",
                        created_at=now,
                        updated_at=now,
                    )
                )
            return record(Upload, row)

    def receive(self, upload_id: str, receipt: Receipt) -> Receipt:
        """Record that all of an upload is durable; return its receipt, the first one if again."""
        now = self._clock()
        with self._database.write() as session:
            row = _get(session, upload_id)
            if row.receipt is not None:
                return row.receipt
            row.received_at = receipt.received_at
            row.receipt_signature = receipt.signature
            row.touched_at = now
            submission = session.get(
                SubmissionRow, upload_id, with_for_update={"of": SubmissionRow}
            )
            if submission is not None:
                check_submission(upload_id, submission.state, SubmissionState.RECEIVED)
                submission.state = SubmissionState.RECEIVED
                submission.updated_at = now
            return receipt

    def touch(self, upload_id: str) -> None:
        """Note that bytes of an upload arrived; renews its lease."""
        with self._database.write() as session:
            _get(session, upload_id).touched_at = self._clock()

    def held(self, upload_id: str, digest: str) -> dict[str, HeldAt] | None:
        """Return which tensors of a blob need not travel, by name; None: it is not decided."""
        with self._database.read() as session:
            row = session.get(UploadBlobRow, (upload_id, digest))
            return None if row is None else _held(row)

    def hold(
        self, upload_id: str, digest: str, held: Mapping[str, HeldAt], held_bytes: int
    ) -> dict[str, HeldAt]:
        """Decide which tensors of a blob need not travel, for as long as the upload lasts.

        `held` says where the coordinator has each of these, `held_bytes` how large they are.
        Returns the decision that is in force: the first one.
        """
        with self._database.write() as session:
            row = _get_blob(session, upload_id, digest)
            if row.held is None:
                row.held = {name: list(place) for name, place in held.items()}
                row.held_bytes = held_bytes
            return _held(row) or {}

    def hold_nothing(self, upload_id: str, digest: str) -> None:
        """Decide that a blob travels as a whole, whatever was decided before."""
        with self._database.write() as session:
            row = _get_blob(session, upload_id, digest)
            row.held, row.held_bytes = {}, 0

    def held_bytes(self) -> dict[str, int]:
        """Return how many bytes of each upload need not travel, or did not, where there are any."""
        total = func.sum(UploadBlobRow.held_bytes)
        query = (
            select(UploadBlobRow.upload_id, total)
            .where(UploadBlobRow.held_bytes > 0)
            .group_by(UploadBlobRow.upload_id)
        )
        with self._database.read() as session:
            return {upload_id: int(count) for upload_id, count in session.execute(query)}

    def get(self, upload_id: str) -> Upload:
        """Return an upload; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(Upload, _get(session, upload_id))

    def find(self, manifest_digest: str) -> Upload | None:
        """Return the upload of a manifest, of either kind, received or not."""
        query = select(UploadRow).where(UploadRow.manifest_digest == manifest_digest)
        return next(iter(self._database.fetch(Upload, query)), None)

    def refinement(self, manifest_digest: str) -> Upload | None:
        """Return the upload of a refined adapter that has its receipt, or None."""
        upload = self.find(manifest_digest)
        if upload is None or upload.kind != "refinement" or upload.receipt is None:
            return None
        return upload

    def live(self, site: str, digest: str) -> bool:
        """Say whether an open upload of a site, within its lease, still waits for a blob."""
        return self._any(site, digest, *_open_since(self._clock() - LEASE_SECONDS))

    def sent(self, site: str, digest: str) -> bool:
        """Say whether a site has a receipt for a blob."""
        return self._any(site, digest, UploadRow.received_at.is_not(None))

    def references(self) -> list[UploadReferences]:
        """Return what every upload refers to in the store, oldest first."""
        lease = self._clock() - LEASE_SECONDS
        blobs: defaultdict[str, set[str]] = defaultdict(set)
        with self._database.read() as session:
            pairs = select(UploadBlobRow.upload_id, UploadBlobRow.digest)
            for upload_id, digest in session.execute(pairs):
                blobs[upload_id].add(digest)
            rows = session.execute(
                select(UploadRow, SubmissionRow.state)
                .outerjoin(SubmissionRow, SubmissionRow.id == UploadRow.id)
                .order_by(UploadRow.created_at, UploadRow.id)
            )
            return [
                UploadReferences(
                    id=row.id,
                    evaluation_id=row.evaluation_id,
                    state=state,
                    open=row.received_at is None and row.touched_at > lease,
                    manifest=row.manifest_digest,
                    signature=hashlib.sha256(row.signature).hexdigest(),
                    blobs=frozenset(blobs[row.id]),
                )
                for row, state in rows
            ]

    def first_with(self, digest: str) -> str | None:
        """Return the site that was the first to ship a blob, refused or not; None: none has."""
        query = (
            select(UploadRow.site)
            .join(UploadBlobRow, UploadRow.id == UploadBlobRow.upload_id)
            .where(UploadBlobRow.digest == digest, UploadRow.received_at.is_not(None))
            .order_by(UploadRow.received_at, UploadRow.created_at)
            .limit(1)
        )
        with self._database.read() as session:
            return session.scalar(query)

    def _any(self, site: str, digest: str, *conditions: ColumnElement[bool]) -> bool:
        query = (
            select(UploadBlobRow.upload_id)
            .join(UploadRow, UploadRow.id == UploadBlobRow.upload_id)
            .where(UploadBlobRow.digest == digest, UploadRow.site == site, *conditions)
            .limit(1)
        )
        with self._database.read() as session:
            return session.scalar(query) is not None

    def _check_quota(
        self, session: Session, manifest: Manifest, limit: int, byte_limit: int | None, lease: float
    ) -> None:
        site, sizes = manifest.site, _sizes(manifest)
        if byte_limit is not None and sum(sizes.values()) > byte_limit:
            raise LimitError(
                f"quota: the manifest lists {sum(sizes.values())} bytes, a site's open uploads may "
                f"have {byte_limit}; ask the coordinator's operator to raise "
                "server.max_open_bytes_per_site"
            )
        later = (
            "commit or resume those first, or try again later: one that nothing has touched for "
            f"{LEASE_SECONDS / 3600:g} h no longer counts"
        )
        opened = select(UploadRow.manifest).where(UploadRow.site == site, *_open_since(lease))
        open_ones = session.scalars(opened).all()
        if len(open_ones) >= limit:
            raise BusyError(
                f"quota: site '{site}' has {len(open_ones)} open uploads, the limit is {limit}; "
                f"{later}"
            )
        if byte_limit is None:
            return
        for document in open_ones:
            sizes |= _sizes(parse_manifest(document))
        if sum(sizes.values()) > byte_limit:
            raise BusyError(
                f"quota: with this one, the open uploads of site '{site}' would have "
                f"{sum(sizes.values())} bytes, the limit is {byte_limit}; {later}"
            )


def _open_since(lease: float) -> tuple[ColumnElement[bool], ...]:
    return UploadRow.received_at.is_(None), UploadRow.touched_at > lease


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {entry.digest: entry.size for entry in manifest.blobs()}


def _get(session: Session, upload_id: str) -> UploadRow:
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise NotFoundError(f"no upload '{upload_id}'; begin it again with its manifest")
    return row


def _get_blob(session: Session, upload_id: str, digest: str) -> UploadBlobRow:
    row = session.get(UploadBlobRow, (upload_id, digest))
    if row is None:
        raise NotFoundError(
            f"upload '{upload_id}' has no blob {digest}; begin it again with its manifest"
        )
    return row


def _held(row: UploadBlobRow) -> dict[str, HeldAt] | None:
    return None if row.held is None else {name: HeldAt(*at) for name, at in row.held.items()}
