"""Submissions: teacher nets that sites ship, and how far each has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from sqlalchemy import select

from rootstock.common.errors import NotFoundError
from rootstock.coordinator.growth.states import SubmissionState, check_submission
from rootstock.coordinator.registry.database import Database
from rootstock.coordinator.registry.documents import NewEvent
from rootstock.coordinator.registry.events import append_events
from rootstock.coordinator.registry.records import Submission, record
from rootstock.coordinator.registry.tables import MergeRow, SubmissionRow


class Submissions:
    """The submissions table; `Uploads.begin` creates the rows."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def get(self, submission_id: str) -> Submission:
        """Return a submission; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(Submission, self._row(session.get(SubmissionRow, submission_id)))

    def all(self, *states: SubmissionState) -> list[Submission]:
        """Return the submissions in any of the states (all, when none is named), oldest first."""
        query = select(SubmissionRow).order_by(SubmissionRow.created_at, SubmissionRow.id)
        if states:
            query = query.where(SubmissionRow.state.in_(states))
        return self._database.fetch(Submission, query)

    def undecided(self) -> list[Submission]:
        """Return the admitted submissions that no merge was queued for yet, oldest first."""
        merges = select(MergeRow.id).where(MergeRow.submission_id == SubmissionRow.id)
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

        Raises
        ------
        ConflictError
            If the state may not follow the present one.
        """
        now = self._clock()
        with self._database.write() as session:
            row = self._row(
                session.get(SubmissionRow, submission_id, with_for_update={"of": SubmissionRow})
            )
            check_submission(submission_id, row.state, state)
            row.state, row.reason, row.updated_at = state, reason, now
            append_events(session, events, now)
            return record(Submission, row)

    def _row(self, row: SubmissionRow | None) -> SubmissionRow:
        if row is None:
            raise NotFoundError("no such submission; list them with `rootstock coordinator status`")
        return row
