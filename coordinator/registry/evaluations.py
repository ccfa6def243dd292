"""Evaluations: what the owning lab is asked about a merge's candidates, and what it answered."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, LargeBinary, select, type_coerce
from sqlalchemy.orm import Session

from rootstock.common.errors import NotFoundError
from rootstock.common.protocol import evaluation_id
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest
from rootstock.coordinator.registry.events import append_events
from rootstock.coordinator.registry.records import Evaluation, record
from rootstock.coordinator.registry.tables import EvaluationRow


class Evaluations(Subject):
    """The evaluations table."""

    def request(self, site: str, request: EvaluationRequest) -> Evaluation:
        """Ask a site to evaluate, in one transaction with the event that tells it.

        Idempotent per id: a second call changes nothing and returns the first request.
        """
        now = self._clock()
        with self._database.write() as session:
            row = session.get(EvaluationRow, request.evaluation_id)
            if row is None:
                row = EvaluationRow(
                    id=request.evaluation_id,
                    merge_id=request.merge_id,
                    site=site,
                    request=request,
                    requested_at=now,
                )
                session.add(row)
                append_events(session, [request.to(site)], now)
                session.flush()
            return record(Evaluation, row)

    def report(self, evaluation: str, report: EvaluationReport) -> bool:
        """Store a lab's answer; return False, and change nothing, if there is one already."""
        now = self._clock()
        with self._database.write() as session:
            row = _get(session, evaluation, lock=True)
            if row.report is not None:
                return False
            row.report, row.reported_at = report, now
            return True

    def get(self, evaluation: str) -> Evaluation:
        """Return an evaluation; NotFoundError if there is none."""
        with self._database.read() as session:
            return record(Evaluation, _get(session, evaluation))

    def documents(self, evaluation: str) -> tuple[bytes, bytes | None]:
        """Return request and report as they are stored; NotFoundError if there is no such one."""
        query = select(
            type_coerce(EvaluationRow.request, LargeBinary),
            type_coerce(EvaluationRow.report, LargeBinary),
        ).where(EvaluationRow.id == evaluation)
        with self._database.read() as session:
            row = session.execute(query).one_or_none()
        if row is None:
            raise _missing(evaluation)
        return row[0], row[1]

    def unanswered(self, site: str) -> list[Evaluation]:
        """Return a site's requests that have no report yet."""
        return self._all(EvaluationRow.site == site, EvaluationRow.report.is_(None))

    def of_merges(self, merge_ids: Iterable[str]) -> list[Evaluation]:
        """Return all that some merges have asked for."""
        return self._all(EvaluationRow.merge_id.in_(merge_ids))

    def _all(self, *conditions: ColumnElement[bool]) -> list[Evaluation]:
        return self._database.fetch(Evaluation, select(EvaluationRow).where(*conditions))

    def of_merge(self, merge_id: str, turn: int = 1) -> Evaluation | None:
        """Return the evaluation that a merge asked for at that turn, or None."""
        return next(iter(self._all(EvaluationRow.id == evaluation_id(merge_id, turn))), None)


def _get(session: Session, evaluation: str, *, lock: bool = False) -> EvaluationRow:
    row = session.get(EvaluationRow, evaluation, with_for_update=lock)
    if row is None:
        raise _missing(evaluation)
    return row


def _missing(evaluation: str) -> NotFoundError:
    return NotFoundError(f"no evaluation '{evaluation}'; watch for the requests of this site")
