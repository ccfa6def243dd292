"""Appends to the log within the transaction that changes what the log is about."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar

from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from rootstock.common import times
from rootstock.common.documents import canonical_json
from rootstock.common.errors import StorageError
from rootstock.common.provenance.log import SAID_ONCE, LogEntry, LogKind
from rootstock.common.provenance.merkle import HASH_BYTES, Node, completed, leaf_hash
from rootstock.coordinator.registry.facts import LOGGED, Fact, all_facts, facts, head_fact
from rootstock.coordinator.registry.tables import LogRow, NetVersionRow, take

LOG_REVISION = "0009"
"""The schema's revision that facts were last added in: a database of before gets entries for all
that is new in them, once."""

ACTING: ContextVar[str] = ContextVar("rootstock_acting", default="coordinator")
"""In whose name the present task changes the database; see `LogEntry.by`."""


UPGRADE = "upgrade"
"""See `LogEntry.by`."""


def record_changes(session: Session, rows: Iterable[object]) -> int:
    """Append an entry for each fact about the written rows that is new; return how many."""
    written = sorted(
        (row for row in rows if isinstance(row, LOGGED)), key=lambda row: LOGGED.index(type(row))
    )
    found = [fact for row in written for fact in facts(row)]
    if any(isinstance(row, NetVersionRow) for row in written):
        found.append(head_fact(session))
    return _append_new(session, found, ACTING.get())


def adopt(connection: Connection) -> None:
    """Begin the log of a database from before there was one with all that is in it."""
    with Session(connection) as session:
        _append_new(session, all_facts(session), UPGRADE)
        session.flush()


def node(session: Session) -> Node:
    """Return how the log's tree reads the hash of a perfect subtree.

    StorageError if the log has not got its last entry: a fault of this database, and of nobody
    who asks.
    """

    def read(level: int, index: int) -> bytes:
        last = (index + 1 << level) - 1
        row = session.get(LogRow, last)
        begin = level * HASH_BYTES
        found = b"" if row is None else row.hashes[begin : begin + HASH_BYTES]
        if len(found) != HASH_BYTES:
            raise StorageError(
                f"the log lacks entry {last}, or its hashes; put back a backup of the database"
            )
        return found

    return read


def last_entry(session: Session, kind: LogKind, subject: str) -> LogEntry | None:
    """Return the newest entry about a subject, or None."""
    entry = session.scalar(
        select(LogRow.entry)
        .where(LogRow.kind == kind, LogRow.about == subject)
        .order_by(LogRow.index.desc())
        .limit(1)
    )
    return None if entry is None else LogEntry.parse(entry, what="entry of the log")


def _append_new(session: Session, found: Iterable[Fact], by: str) -> int:
    count = 0
    for fact in found:
        last = last_entry(session, fact.kind, fact.subject)
        if last is not None and fact.kind in SAID_ONCE:
            continue  # a document that another version wrote stays as it was entered
        if last is None or canonical_json(last.facts) != canonical_json(fact.values):
            _append(session, fact, by)
            count += 1
    return count


def _append(session: Session, fact: Fact, by: str) -> None:
    index = take(session, "log") - 1
    entry = LogEntry(
        index=index, kind=fact.kind, subject=fact.subject, by=by, at=times.now(), facts=fact.values
    ).canonical()
    hashes = completed(index, leaf_hash(entry), node(session))
    row = LogRow(
        index=index, kind=fact.kind, about=fact.subject, entry=entry, hashes=b"".join(hashes)
    )
    session.add(row)
    session.flush()
