"""Net versions: a line of commits, each the child of the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Unpack

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.errors import ConflictError, NotFoundError
from coordinator.registry.counters import take
from coordinator.registry.database import Database
from coordinator.registry.events import append_events
from coordinator.registry.merges import MergeFields, move
from coordinator.registry.records import NetVersion, NewEvent, record
from coordinator.registry.states import MergeState
from coordinator.registry.tables import NetVersionRow


class Versions:
    """The net_versions table."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def commit(
        self,
        number: int,
        digest: str,
        tree: str,
        parent: int | None,
        merge_id: str,
        *,
        events: Iterable[NewEvent] = (),
        **fields: Unpack[MergeFields],
    ) -> NetVersion:
        """Commit a net version and move its merge to `merged`, in one transaction.

        Parameters
        ----------
        number
            One more than the parent's; 1 for the first.
        digest, tree
            SHA-256 of the commit and of the tree; both blobs are in the store already.
        parent
            The head that this version was made from; None for the first.
        events, fields
            Appended and set in the same transaction; see `Merges.advance`.

        Raises
        ------
        ConflictError
            If `parent` is no longer the head: make the version again from the new head.
        """
        now = self._clock()
        with self._database.write() as session:
            # Holds every other commit back until this one ends.
            take(session, "version")
            head = _head(session)
            if parent != head or number != (head or 0) + 1:
                raise ConflictError(
                    f"net version {number} has parent {parent}, but the head is {head}; "
                    "make it again from the head"
                )
            row = NetVersionRow(
                number=number,
                digest=digest,
                tree=tree,
                parent=parent,
                merge_id=merge_id,
                created_at=now,
            )
            fields.setdefault("parent_version", parent)
            merge = move(session, merge_id, MergeState.MERGED, fields, now)
            merge.net_version = number
            session.add(row)
            append_events(session, events, now)
            session.flush()
            return record(NetVersion, row)

    def head(self) -> NetVersion | None:
        """Return the newest version, or None before the net is founded."""
        with self._database.read() as session:
            number = _head(session)
            row = None if number is None else session.get(NetVersionRow, number)
            return None if row is None else record(NetVersion, row)

    def get(self, number: int) -> NetVersion:
        """Return a version by its number; NotFoundError if there is none."""
        with self._database.read() as session:
            row = session.get(NetVersionRow, number)
            if row is None:
                raise NotFoundError(
                    f"no net version {number}; the head is {_head(session) or 'not founded yet'}"
                )
            return record(NetVersion, row)

    def all(self) -> list[NetVersion]:
        """Return every version, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(select(NetVersionRow).order_by(NetVersionRow.number))
            return [record(NetVersion, row) for row in rows]


def _head(session: Session) -> int | None:
    return session.scalar(select(func.max(NetVersionRow.number)))
