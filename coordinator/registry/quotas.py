"""Quotas: what a site, and all sites together, may have begun, stored and open."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, func, or_, select, true
from sqlalchemy.orm import Session

from rootstock.common.errors import BusyError
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.states import OPEN_MERGES, SubmissionState
from rootstock.coordinator.registry.tables import EvaluationRow, MergeRow, SubmissionRow, UploadRow

HOUR_SECONDS = 3600.0

LEASE_SECONDS = 24 * 3600.0
"""An upload that nothing has touched for this long no longer counts against its site's quota;
it can still be resumed, within the quota."""


@dataclass(frozen=True)
class Quota:
    """Limits on what is begun and stored; the settings of `[server]` by these names."""

    max_open_merges_per_site: int
    max_uploads_per_hour_per_site: int
    max_uploads_per_hour: int
    max_stored_bytes_per_site: int
    max_stored_bytes: int


def require_room(session: Session, site: str, size: int, quota: Quota, now: float) -> None:
    """Raise BusyError if one more upload of `size` bytes is over a quota of what is kept.

    What counts as stored is what collecting garbage leaves: not the blobs of refused submissions,
    of uploads that nothing has touched within their lease, and of refined adapters whose merge has
    ended without them.
    """
    own: ColumnElement[bool] = UploadRow.site == site
    for setting, limit, whose, condition in (
        (
            "max_uploads_per_hour_per_site",
            quota.max_uploads_per_hour_per_site,
            f"site '{site}'",
            own,
        ),
        ("max_uploads_per_hour", quota.max_uploads_per_hour, "all sites together", true()),
    ):
        begun = select(func.count()).where(condition, UploadRow.created_at > now - HOUR_SECONDS)
        if (count := session.scalar(begun) or 0) >= limit:
            raise BusyError(
                f"quota: {whose} began {count} uploads within an hour, the limit is {limit}; try "
                f"again later, or ask the operator to raise server.{setting}"
            )
    for setting, limit, whose, condition in (
        ("max_stored_bytes_per_site", quota.max_stored_bytes_per_site, f"site '{site}'", own),
        ("max_stored_bytes", quota.max_stored_bytes, "all sites together", true()),
    ):
        kept = select(func.sum(UploadRow.size)).where(condition, *_stored(now - LEASE_SECONDS))
        if (stored := int(session.scalar(kept) or 0)) + size > limit:
            raise BusyError(
                f"quota: {whose} would have {stored + size} bytes with this upload, the limit is "
                f"{limit}; ask the operator to raise server.{setting}"
            )


def _stored(lease: float) -> tuple[ColumnElement[bool], ...]:
    refused = exists().where(
        SubmissionRow.id == UploadRow.id, SubmissionRow.state == SubmissionState.REFUSED
    )
    left_over = exists().where(
        EvaluationRow.id == UploadRow.evaluation_id,
        MergeRow.id == EvaluationRow.merge_id,
        MergeRow.state.not_in(OPEN_MERGES),
        # No version loses a blob, those rolled back included.
        or_(MergeRow.net_version.is_(None), MergeRow.candidate.is_distinct_from(Candidate.REFINED)),
    )
    open_or_received = or_(UploadRow.received_at.is_not(None), UploadRow.touched_at > lease)
    return open_or_received, ~refused, ~left_over


def require_few_merges(session: Session, site: str, limit: int) -> None:
    """Count a site's open merges, and its submissions that have none yet as one each."""
    merges = (
        select(func.count())
        .select_from(MergeRow)
        .join(UploadRow, UploadRow.id == MergeRow.submission_id)
        .where(UploadRow.site == site, MergeRow.state.in_(OPEN_MERGES))
    )
    undecided = (
        select(func.count())
        .select_from(SubmissionRow)
        .join(UploadRow, UploadRow.id == SubmissionRow.id)
        .where(
            UploadRow.site == site,
            SubmissionRow.state.in_((SubmissionState.RECEIVED, SubmissionState.ADMITTED)),
            ~exists().where(MergeRow.submission_id == SubmissionRow.id),
        )
    )
    count = (session.scalar(merges) or 0) + (session.scalar(undecided) or 0)
    if count >= limit:
        raise BusyError(
            f"quota: site '{site}' has {count} open merges, the limit is {limit}; wait until some "
            "have ended, or ask the operator to raise server.max_open_merges_per_site"
        )
