"""What the log records of each row: pure functions, for whoever writes the log and who replays it.

Times that only order a list, and whatever changes while work is under way, are no facts. Values are
JSON's; a document stands for itself by its digest, so that its canonical form must stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import LargeBinary, select, type_coerce
from sqlalchemy.orm import Session

from rootstock.common.errors import IntegrityError
from rootstock.common.provenance.log import LogKind
from rootstock.coordinator.growth.states import OPEN_MERGES, SubmissionState
from rootstock.coordinator.registry.tables import (
    Base,
    CertificateRow,
    EvaluationRow,
    FormerKeyRow,
    MergeRow,
    NetVersionRow,
    SiteRow,
    SubmissionRow,
    UploadRow,
)

NET = "net"
"""The subject of the entries about the head."""

LOGGED: tuple[type[Base], ...] = (
    SiteRow,
    FormerKeyRow,
    CertificateRow,
    UploadRow,
    SubmissionRow,
    EvaluationRow,
    MergeRow,
    NetVersionRow,
)
"""Tables whose rows have facts; each refers to earlier ones only."""


class Fact(NamedTuple):
    """What is to be known of one subject."""

    kind: LogKind
    subject: str
    values: dict[str, Any]


def facts(row: object) -> Iterator[Fact]:
    """Yield what a row is to be known for; nothing while its subject is under way."""
    values: dict[str, Any]
    match row:
        case SiteRow():
            disabled = None if row.disabled_at is None else row.disabled_reason or ""
            values = {"public_key": row.public_key.hex(), "disabled": disabled}
            yield Fact(LogKind.SITE, row.name, values)
        case FormerKeyRow():
            key = row.public_key.hex()
            yield Fact(LogKind.FORMER_KEY, f"{row.site}/{key}", {"public_key": key})
        case CertificateRow():
            revoked = None if row.revoked_at is None else row.reason or ""
            values = {"name": row.name, "access": row.access, "revoked": revoked}
            yield Fact(LogKind.CERTIFICATE, row.serial, values)
        case UploadRow() if row.received_at is not None:
            yield Fact(LogKind.RECEIVED, row.id, _received(row))
        case SubmissionRow() if row.state in (SubmissionState.ADMITTED, SubmissionState.REFUSED):
            values = {"category": row.category, "state": row.state, "reason": row.reason}
            yield Fact(LogKind.SUBMISSION, row.id, values)
        case EvaluationRow():
            report = None if row.report is None else row.report.canonical()
            yield from _evaluation(row.id, row.merge_id, row.site, row.request.canonical(), report)
        case MergeRow():
            if row.decision is not None:
                values = {"decision": row.decision, "reason": row.decision_reason}
                yield Fact(LogKind.DECISION, row.id, values)
            if row.state not in OPEN_MERGES:
                yield Fact(LogKind.MERGE, row.id, _merge(row))
        case NetVersionRow():
            values = {
                "commit": row.digest,
                "tree": row.tree,
                "parent": row.parent,
                "merge": row.merge_id,
                "rolled_back": row.rolled_back_at is not None,
            }
            yield Fact(LogKind.VERSION, str(row.number), values)


def head_fact(session: Session) -> Fact:
    """Return which net version is the head; the commit is None where there is no net."""
    standing = select(NetVersionRow).where(NetVersionRow.rolled_back_at.is_(None))
    row = session.scalars(standing.order_by(NetVersionRow.number.desc()).limit(1)).first()
    values = {"version": row and row.number, "commit": row and row.digest}
    return Fact(LogKind.HEAD, NET, values)


def all_facts(session: Session) -> Iterator[Fact]:
    """Yield the facts of every row; IntegrityError names a table with what none can have."""
    for evaluation in session.execute(
        select(
            EvaluationRow.id,
            EvaluationRow.merge_id,
            EvaluationRow.site,
            # As they are stored: what a reader would leave out of a document counts, too.
            type_coerce(EvaluationRow.request, LargeBinary),
            type_coerce(EvaluationRow.report, LargeBinary),
        ).order_by(EvaluationRow.id)
    ):
        yield from _evaluation(*evaluation)
    for table in LOGGED:
        if table is EvaluationRow:
            continue
        try:
            for row in session.scalars(select(table).order_by(*table.__table__.primary_key)):
                yield from facts(row)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"table {table.__tablename__} holds what is never written there ({error!r}); put "
                "back a backup of the database"
            ) from error
    head = head_fact(session)
    if head.values["version"] is not None or session.scalar(select(NetVersionRow.number).limit(1)):
        yield head


def _received(row: UploadRow) -> dict[str, Any]:
    return {
        "site": row.site,
        "kind": row.kind,
        "manifest": row.manifest_digest,
        "document": hashlib.sha256(row.manifest).hexdigest(),
        "signature": row.signature.hex(),
        "evaluation": row.evaluation_id,
        "received_at": row.received_at,
    }


def _merge(row: MergeRow) -> dict[str, Any]:
    return {
        "submission": row.submission_id,
        "operation": row.operation,
        "category": row.category,
        "task": row.task,
        "state": row.state,
        "reason": row.reason,
        "candidate": row.candidate,
        "parent": row.parent_version,
        "version": row.net_version,
        "numbers": row.numbers.flat(),
    }


def _evaluation(
    evaluation: str, merge: str, site: str, request: bytes, report: bytes | None
) -> Iterator[Fact]:
    asked = {"merge": merge, "site": site, "request": hashlib.sha256(request).hexdigest()}
    yield Fact(LogKind.QUESTION, evaluation, asked)
    if report is not None:
        digest = hashlib.sha256(report).hexdigest()
        yield Fact(LogKind.REPORT, evaluation, {"report": digest})
