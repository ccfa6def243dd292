"""Submissions: teacher nets that sites ship, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from rootstock.common.errors import NotFoundError
from rootstock.coordinator.growth.states import SubmissionState, check_submission
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.documents import NewEvent
from rootstock.coordinator.registry.events import append_events
from rootstock.coordinator.registry.records import Submission, record
from rootstock.coordinator.registry.tables import MergeRow, SubmissionRow


class Submissions(Subject):
    """The submissions table; `Uploads.begin` creates the rows."""

    def get(self, submission_id: str) -> Submission:
        """Return a submission; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(Submission, _get(session, submission_id))

    def all(self, *states: SubmissionState) -> list[Submission]:
        """Return the submissions in any of the states (all, when none is named), oldest first."""
        query = select(SubmissionRow).order_by(SubmissionRow.created_at, SubmissionRow.id)
        if states:
            query = query.where(SubmissionRow.state.in_(states))
        return self._database.fetch(Submission, query)

    def undecided(self) -> list[Submission]:
        """Return the admitted submissions without a merge that stands for them, oldest first."""
        merges = select(MergeRow.id).where(
            MergeRow.submission_id == SubmissionRow.id, MergeRow.void.is_(False)
        )
        query = (
            select(SubmissionRow)
            .where(SubmissionRow.state == SubmissionState.ADMITTED, ~merges.exists())
            .order_by(SubmissionRow.created_at, SubmissionRow.id)
        )
        return self._database.fetch(Submission, query)

    def set_state(
        self,
        submission_id: str,
        state: SubmissionState,
        reason: str = "",
        *,
        events: Iterable[NewEvent] = (),
    ) -> Submission:
        """Move a submission on, in one transaction with the events that tell of it.

        ConflictError if the state may not follow the present one.
        """
        now = self._clock()
        with self._database.write() as session:
            row = _get(session, submission_id, lock=True)
            check_submission(submission_id, row.state, state)
            row.state, row.reason, row.updated_at = state, reason, now
            append_events(session, events, now)
            return record(Submission, row)


def _get(session: Session, submission_id: str, *, lock: bool = False) -> SubmissionRow:
    locked = {"of": SubmissionRow} if lock else None
    row = session.get(SubmissionRow, submission_id, with_for_update=locked)
    if row is None:
        raise NotFoundError("no such submission; list them with `rootstock coordinator status`")
    return row
