"""Turns: one piece of work at a time, and no site's many before another's first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Of the sites that wait, the one comes next whose last turn is the longest ago."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._waiting: list[str] = []
        self._busy = False
        self._served: dict[str, int] = {}
        """The number of each site's last turn."""

    @asynccontextmanager
    async def of(self, site: str) -> AsyncIterator[None]:
        """Wait for a site's turn, and have it for the block."""
        async with self._changed:
            self._waiting.append(site)
            try:
                await self._changed.wait_for(lambda: not self._busy and self._next() == site)
                self._busy = True
            finally:
                self._waiting.remove(site)
                self._changed.notify_all()  # one that was cancelled may have been the next
            self._served[site] = max(self._served.values(), default=0) + 1
        try:
            yield
        finally:
            self._busy = False
            async with self._changed:
                self._changed.notify_all()

    def _next(self) -> str:
        return min(self._waiting, key=lambda site: self._served.get(site, 0))
