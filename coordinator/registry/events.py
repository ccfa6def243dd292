"""What sites are to hear of: appended with the change it tells of, replayed after a cursor."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from rootstock.coordinator.registry.database import Subject
from rootstock.coordinator.registry.documents import Event, NewEvent
from rootstock.coordinator.registry.tables import EventRow, take


def append_events(session: Session, events: Iterable[NewEvent], now: float) -> int:
    """Append within the caller's transaction; return the last cursor, 0 when there was none."""
    cursor = 0
    for event in events:
        cursor = take(session, "event")
        session.add(
            EventRow(
                cursor=cursor,
                site=event.site,
                kind=event.kind,
                payload=event.payload,
                created_at=now,
            )
        )
        if event.site is None:
            session.info["everyone"] = True
        else:
            session.info.setdefault("sites", set()).add(event.site)
    return cursor


class Events(Subject):
    """The events table."""

    def append(self, event: NewEvent) -> int:
        """Append one event; return its cursor."""
        with self._database.write() as session:
            return append_events(session, [event], self._clock())

    def after(self, site: str, cursor: int, limit: int) -> list[Event]:
        """Return at most `limit` events that concern a site, oldest first, after the cursor."""
        query = (
            select(EventRow)
            .where(EventRow.cursor > cursor, or_(EventRow.site == site, EventRow.site.is_(None)))
            .order_by(EventRow.cursor)
            .limit(limit)
        )
        return self._database.fetch(Event, query)

    def since(self, cursor: int, limit: int) -> list[Event]:
        """Return at most `limit` events of all sites, oldest first, after the cursor."""
        query = select(EventRow).where(EventRow.cursor > cursor).order_by(EventRow.cursor)
        return self._database.fetch(Event, query.limit(limit))

    def last_cursor(self) -> int:
        """Return the cursor of the newest event, 0 when there is none."""
        with self._database.read() as session:
            return session.scalar(select(func.max(EventRow.cursor))) or 0
