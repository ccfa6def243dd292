"""The log: what made the net what it is, entry by entry; appended to by `Database.write` alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rootstock.common.errors import NotFoundError
from rootstock.common.provenance import merkle
from rootstock.common.provenance.log import LogEntry, LogKind
from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.entries import last_entry, node
from rootstock.coordinator.registry.facts import Fact, all_facts
from rootstock.coordinator.registry.tables import LogRow

PAGE = 500
"""Entries read at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of the log, as the database has it: nothing in it is to be believed."""

    index: int
    kind: str
    subject: str
    entry: Any
    hashes: Any
    """Both bytes, as they are written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Included:
    """An entry of the log of a size, with that log's root and the proof that it is in it."""

    entry: LogEntry
    size: int
    root: bytes
    proof: list[bytes]


class Log(Subject):
    """The log table."""

    def size(self) -> int:
        """Return the number of entries."""
        with self._database.read() as session:
            return _size(session)

    def root(self, size: int | None = None) -> tuple[int, bytes]:
        """Return the root of the first `size` entries, of all by default, and their number.

        NotFoundError if there are fewer, StorageError if one is missing.
        """
        with self._database.read() as session:
            size = _known(session, size)
            return size, merkle.root(size, node(session))

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Return the proof that the first `old` entries begin the first `new`, see `root`."""
        with self._database.read() as session:
            new = _known(session, new)
            _known(session, old)
            return merkle.consistency_proof(min(old, new), new, node(session))

    def included(self, kind: LogKind, subject: str) -> Included:
        """Return the newest entry about a subject, and the proof that the log has it.

        NotFoundError if there is none.
        """
        with self._database.read() as session:
            entry = last_entry(session, kind, subject)
            if entry is None:
                raise NotFoundError(f"the log has no entry about {kind} {subject}")
            size, read = _size(session), node(session)
            proof = merkle.inclusion_proof(entry.index, size, read)
            return Included(entry, size, merkle.root(size, read), proof)

    def last(self, kind: LogKind, subject: str) -> LogEntry | None:
        """Return the newest entry about a subject, or None."""
        with self._database.read() as session:
            return last_entry(session, kind, subject)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Iterator[StoredEntry], Iterator[Fact]]]:
        """Yield every entry, and what the other tables say: as they were at one moment."""
        query = select(LogRow).order_by(LogRow.index).execution_options(yield_per=PAGE)
        with self._database.read() as session:
            rows = (
                StoredEntry(row.index, row.kind, row.about, row.entry, row.hashes)
                for row in session.scalars(query)
            )
            yield rows, all_facts(session)


def _size(session: Session) -> int:
    last = session.scalar(select(func.max(LogRow.index)))
    return 0 if last is None else last + 1


def _known(session: Session, size: int | None) -> int:
    there = _size(session)
    if size is not None and size > there:
        raise NotFoundError(
            f"the log has {there} entries, asked was about {size}; a log never shrinks: was the "
            "coordinator put back from a backup?"
        )
    return there if size is None else size
