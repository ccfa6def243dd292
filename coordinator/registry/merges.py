"""Merges: one transplanting operation each, from queued to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.readiness import OpenMerge
from rootstock.coordinator.growth.states import OPEN_MERGES, MergeState, check_merge
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.documents import NewEvent
from rootstock.coordinator.registry.events import append_events
from rootstock.coordinator.registry.records import Decision, Merge, record
from rootstock.coordinator.registry.tables import MergeRow, UploadRow, take

OLDEST_FIRST = (MergeRow.created_at, MergeRow.id)


class MergeFields(TypedDict, total=False):
    """What may be set with a step; left out means unchanged."""

    reason: str
    numbers: MergeNumbers
    """Added to the numbers that are there."""
    job_result: dict[str, Any] | None
    inspection: dict[str, Any] | None
    step: int
    steps: int
    parent_version: int | None
    candidate: Candidate | None
    decision: Decision | None
    decision_reason: str | None
    logged: bool
    started_at: float | None
    finished_at: float | None


class Merges(Subject):
    """The merges table."""

    def create(
        self,
        submission_id: str,
        category: str,
        task: str,
        operation: OperationKind,
        *,
        released: bool = True,
        job_result: dict[str, Any] | None = None,
    ) -> Merge:
        """Queue one operation; see `queue`."""
        (queued,) = self.queue(
            submission_id,
            [Operation(operation, category, task)],
            released=released,
            job_result=job_result,
        )
        return queued

    def queue(
        self,
        submission_id: str,
        operations: Iterable[Operation],
        *,
        released: bool = True,
        job_result: dict[str, Any] | None = None,
    ) -> list[Merge]:
        """Queue operations of a submission; return a merge for each, new or queued before.

        Without `released` they wait for `release`. `job_result` is what was learned before.
        """
        now = self._clock()
        with self._database.write() as session:
            before = session.scalars(
                select(MergeRow).where(
                    MergeRow.submission_id == submission_id, MergeRow.void.is_(False)
                )
            )
            known = {Operation(row.operation, row.category, row.task): row for row in before}
            rows = []
            for operation in operations:
                row = known.get(operation)
                if row is None:
                    row = _new(session, submission_id, operation, now)
                    row.released, row.job_result = released, job_result
                rows.append(row)
            session.flush()
            return [record(Merge, row) for row in rows]

    def fail(
        self,
        submission_id: str,
        operations: Iterable[Operation],
        reason: str,
        parent_version: int | None,
        tell: Callable[[str], NewEvent],
    ) -> None:
        """Record operations that the net has no room for as failed merges, with their events.

        In one transaction, so that none of them is ever carried; `tell` is given a merge's id.
        """
        now = self._clock()
        with self._database.write() as session:
            for operation in operations:
                row = _new(session, submission_id, operation, now)
                row.state, row.reason = MergeState.FAILED, reason
                row.parent_version = parent_version
                row.started_at = row.finished_at = now
                append_events(session, [tell(row.id)], now)

    def get(self, merge_id: str) -> Merge:
        """Return a merge; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(Merge, _get(session, merge_id))

    def all(self, *states: MergeState) -> list[Merge]:
        """Return the merges in any of the states (all, when none is named), oldest first."""
        return self._where(*([MergeRow.state.in_(states)] if states else []))

    def of_submission(self, submission_id: str) -> list[Merge]:
        """Return a submission's merges, oldest first."""
        return self._where(MergeRow.submission_id == submission_id)

    def has_merged(self, site: str) -> bool:
        """Say whether anything that a site shipped is merged, and not rolled back since."""
        query = (
            select(MergeRow.id)
            .join(UploadRow, UploadRow.id == MergeRow.submission_id)
            .where(UploadRow.site == site, MergeRow.state == MergeState.MERGED)
            .limit(1)
        )
        with self._database.read() as session:
            return session.scalar(query) is not None

    def _where(self, *conditions: ColumnElement[bool]) -> list[Merge]:
        query = select(MergeRow).where(*conditions).order_by(*OLDEST_FIRST)
        return self._database.fetch(Merge, query)

    def open(self) -> list[OpenMerge]:
        """Return the open merges, oldest first, without their documents."""
        query = (
            select(
                MergeRow.id,
                MergeRow.submission_id,
                UploadRow.site,
                MergeRow.operation,
                MergeRow.category,
                MergeRow.task,
                MergeRow.state,
                MergeRow.released,
                MergeRow.decision,
            )
            .join(UploadRow, UploadRow.id == MergeRow.submission_id)
            .where(MergeRow.state.in_(OPEN_MERGES))
            .order_by(*OLDEST_FIRST)
        )
        with self._database.read() as session:
            rows = session.execute(query)
            return [
                OpenMerge(
                    id=row.id,
                    submission_id=row.submission_id,
                    site=row.site,
                    operation=Operation(row.operation, row.category, row.task),
                    state=row.state,
                    released=row.released or row.decision is not None,
                    decided=row.decision is not None,
                )
                for row in rows
            ]

    def unlogged(self) -> list[str]:
        """Return the ids of the ended merges that the history lacks, in the order they ended."""
        query = (
            select(MergeRow.id)
            .where(MergeRow.logged.is_(False), MergeRow.state.not_in(OPEN_MERGES))
            .order_by(MergeRow.finished_at, MergeRow.created_at, MergeRow.id)
        )
        with self._database.read() as session:
            return list(session.scalars(query))

    def advance(
        self,
        merge_id: str,
        state: MergeState,
        *,
        events: Iterable[NewEvent] = (),
        **fields: Unpack[MergeFields],
    ) -> Merge:
        """Move a merge to its next state, with its fields and events in one transaction.

        `started_at` is set on leaving `queued`, `finished_at` on reaching a final state, unless
        given. To `merged` goes `Versions.commit`, which commits the net version with it.
        ConflictError if the state may not follow the present one.
        """
        now = self._clock()
        with self._database.write() as session:
            row = move(session, merge_id, state, fields, now)
            append_events(session, events, now)
            return record(Merge, row)

    def release(self) -> list[Merge]:
        """Release every queued merge that waits for the operator; return those, oldest first."""
        now = self._clock()
        with self._database.write() as session:
            waiting = select(MergeRow).where(
                MergeRow.released.is_(False), MergeRow.state == MergeState.QUEUED
            )
            rows = session.scalars(waiting.order_by(*OLDEST_FIRST)).all()
            for row in rows:
                row.released, row.updated_at = True, now
            return [record(Merge, row) for row in rows]

    def release_with(self, merge_id: str, job_result: dict[str, Any]) -> Merge:
        """Store the operator's result for a waiting merge; release it with its siblings.

        ConflictError if it was released or has ended in the meantime.
        """
        now = self._clock()
        with self._database.write() as session:
            row = _get(session, merge_id, lock=True)
            if row.released or row.state is not MergeState.QUEUED:
                raise ConflictError(
                    f"merge {merge_id} went ahead in the meantime: it is '{row.state}'"
                )
            row.job_result = job_result
            siblings = select(MergeRow).where(MergeRow.submission_id == row.submission_id)
            for each in session.scalars(siblings):
                each.released, each.updated_at = True, now
            return record(Merge, row)

    def decide(self, merge_id: str, decision: Decision, reason: str) -> Merge:
        """Store an operator's decision about a merge, on which the merge's runner acts.

        ConflictError if the merge has ended, cannot be approved yet, or was decided otherwise.
        """
        with self._database.write() as session:
            row = _get(session, merge_id, lock=True)
            if row.state not in OPEN_MERGES:
                raise ConflictError(
                    f"merge {merge_id} has ended: it is '{row.state}'; what is merged is taken "
                    "back with `rootstock net rollback`"
                )
            if decision == "approve" and row.state is not MergeState.REVIEWING:
                raise ConflictError(
                    f"merge {merge_id} is '{row.state}'; it can be approved once its numbers are "
                    "there and it waits for a review (state reviewing)"
                )
            if row.decision not in (None, decision):
                raise ConflictError(
                    f"merge {merge_id}: '{row.decision}' was said before ({row.decision_reason})"
                )
            _set(row, {"decision": decision, "decision_reason": reason}, self._clock())
            return record(Merge, row)

    def logged(self, merge_id: str, state: MergeState) -> None:
        """Note that the history shows a merge in a state; one in another state by now stays due."""
        with self._database.write() as session:
            row = _get(session, merge_id, lock=True)
            if row.state is state:
                _set(row, {"logged": True}, self._clock())

    def progress(self, merge_id: str, step: int, steps: int) -> None:
        """Set how far a merge's job is; nobody is woken for that."""
        values = {"step": step, "steps": steps, "updated_at": self._clock()}
        with self._database.write() as session:
            session.execute(update(MergeRow).where(MergeRow.id == merge_id).values(values))

    def update(self, merge_id: str, **fields: Unpack[MergeFields]) -> Merge:
        """Set fields of a merge that stays in its state."""
        with self._database.write() as session:
            row = _get(session, merge_id, lock=True)
            _set(row, fields, self._clock())
            return record(Merge, row)


def move(
    session: Session, merge_id: str, state: MergeState, fields: MergeFields, now: float
) -> MergeRow:
    """Advance within the caller's transaction; see `Merges.advance`."""
    row = _get(session, merge_id, lock=True)
    check_merge(merge_id, row.state, state, row.operation)
    row.state = state
    row.logged = False  # a new state is news to the history, also after the first end
    if row.started_at is None:
        row.started_at = now
    if state not in OPEN_MERGES and row.finished_at is None:
        row.finished_at = now
    _set(row, fields, now)
    return row


def _new(session: Session, submission_id: str, operation: Operation, now: float) -> MergeRow:
    before = select(func.max(MergeRow.attempt)).where(
        MergeRow.submission_id == submission_id,
        MergeRow.category == operation.category,
        MergeRow.task == operation.task,
        MergeRow.operation == operation.kind,
    )
    row = MergeRow(
        id=f"mrg-{take(session, 'merge'):04d}",
        submission_id=submission_id,
        category=operation.category,
        task=operation.task,
        operation=operation.kind,
        attempt=(session.scalar(before) or 0) + 1,
        void=False,
        state=MergeState.QUEUED,
        reason="",
        numbers=MergeNumbers(),
        step=0,
        steps=0,
        released=True,
        logged=False,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    return row


def _set(row: MergeRow, fields: MergeFields, now: float) -> None:
    values = dict(fields)
    if "numbers" in fields:
        values["numbers"] = row.numbers | fields["numbers"]
    for name, value in values.items():
        setattr(row, name, value)
    row.updated_at = now


def _get(session: Session, merge_id: str, *, lock: bool = False) -> MergeRow:
    row = session.get(MergeRow, merge_id, with_for_update=lock)
    if row is None:
        raise NotFoundError(f"no merge '{merge_id}'; list them with `rootstock coordinator status`")
    return row
