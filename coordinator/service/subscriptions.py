"""The watch streams of labs: one subscription a site, that of the newest instance."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from rootstock.common.errors import ConflictError
from rootstock.coordinator.registry import Change

REMEMBERED = 16
"""Superseded instances remembered a site: more than a lab restarts within a day."""


class Subscription:
    """One open watch stream of a site."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.woken = asyncio.Event()
        self.superseded_by: str | None = None


class Subscriptions:
    """The watch streams of this process. Use from its event loop; `notify` from any thread."""

    def __init__(self) -> None:
        self.draining = False
        self._open: dict[str, Subscription] = {}
        self._superseded: dict[str, deque[str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log = structlog.get_logger("watch")

    @contextmanager
    def subscribe(self, site: str, instance: str) -> Iterator[Subscription]:
        """Make this the subscription of a site; an older one is superseded and woken.

        Raises
        ------
        ConflictError
            If this instance was superseded before: two agents would drive each other out for ever.
        """
        self._loop = asyncio.get_running_loop()
        superseded = self._superseded.setdefault(site, deque(maxlen=REMEMBERED))
        if instance in superseded:
            raise ConflictError(
                f"instance '{instance}' of site '{site}' was superseded by a newer one; stop "
                "this agent, or give it a key and a name of its own"
            )
        older = self._open.get(site)
        if older is not None:
            if older.instance != instance:
                superseded.append(older.instance)
                self._log.warning(
                    "watch.superseded", site=site, older=older.instance, newer=instance
                )
            older.superseded_by = instance
            older.woken.set()
        subscription = self._open[site] = Subscription(instance)
        try:
            yield subscription
        finally:
            if self._open.get(site) is subscription:
                del self._open[site]

    def notify(self, change: Change) -> None:
        """Wake those whom a committed change concerns; for `Registry.subscribe`, any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed() and (change.sites or change.everyone):
            loop.call_soon_threadsafe(self._wake, change)

    def drain(self) -> None:
        """End every stream: the coordinator stops."""
        self.draining = True
        self._wake(Change(everyone=True))

    def sites(self) -> set[str]:
        """Return the sites that watch now."""
        return set(self._open)

    def _wake(self, change: Change) -> None:
        for site, subscription in self._open.items():
            if change.everyone or site in change.sites:
                subscription.woken.set()
