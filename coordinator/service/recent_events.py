"""The newest events, read once for all the watch streams that one change wakes."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from rootstock.coordinator.registry import Event
from rootstock.coordinator.registry.events import Events

KEPT = 256
"""Events in memory; a stream that is further behind reads the database by itself."""

FRESH_SECONDS = 1.0
"""For so long what was read is the newest, unless a change says otherwise: one may have got lost
with its writer."""


class RecentEvents:
    """The end of the events table, in memory. Use from one event loop."""

    def __init__(self, events: Events) -> None:
        self._table = events
        self._kept: deque[Event] = deque()
        self._begin: int | None = None  # all events after this cursor are kept; None: never read
        self._end = 0
        self._changes = 0
        self._read_changes, self._read_at = -1, 0.0
        self._reading = asyncio.Lock()

    def changed(self) -> None:
        """Hear that an event was appended."""
        self._changes += 1

    async def after(self, site: str, cursor: int, limit: int) -> list[Event]:
        """Return at most `limit` events that concern a site, oldest first, after the cursor."""
        if self._is_old():
            async with self._reading:
                if self._is_old():  # else another stream was faster
                    await self._read()
        if self._begin is None or cursor < self._begin:
            return await asyncio.to_thread(self._table.after, site, cursor, limit)
        mine = (event for event in self._kept if event.cursor > cursor)
        return [event for event in mine if event.site in (None, site)][:limit]

    def _is_old(self) -> bool:
        age = time.monotonic() - self._read_at
        return self._read_changes != self._changes or age > FRESH_SECONDS

    async def _read(self) -> None:
        # Before the database is asked: what changes meanwhile is read by the next call.
        changes, began = self._changes, time.monotonic()
        if self._begin is None:
            self._begin = self._end = await asyncio.to_thread(self._table.last_cursor)
        more = True
        while more:
            news = await asyncio.to_thread(self._table.since, self._end, KEPT)
            more = len(news) == KEPT
            for event in news:
                self._kept.append(event)
                self._end = event.cursor
                if len(self._kept) > KEPT:
                    self._begin = self._kept.popleft().cursor
        self._read_changes, self._read_at = changes, began
