"""Who watches, and how a watcher is woken: one lease a site, the newest instance holds it."""

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


class Lease:
    """One open watch stream of a site."""

    def __init__(self, site: str, instance: str) -> None:
        self.site = site
        self.instance = instance
        self.woken = asyncio.Event()
        self.superseded_by: str | None = None


class Subscriptions:
    """The watch streams of this process. Use from its event loop; `notify` from any thread."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._superseded: dict[str, deque[str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._log = structlog.get_logger("watch")

    @contextmanager
    def lease(self, site: str, instance: str) -> Iterator[Lease]:
        """Hold a site's watch; an older stream is told that it is superseded.

        Raises
        ------
        ConflictError
            If this instance was superseded before: two agents would drive each other out for ever.
        """
        self._loop = asyncio.get_running_loop()
        gone = self._superseded.setdefault(site, deque(maxlen=REMEMBERED))
        older = self._leases.get(site)
        if instance in gone:
            raise ConflictError(
                f"instance '{instance}' of site '{site}' was superseded by a newer one; stop "
                "this agent, or give it a key and a name of its own"
            )
        if older is not None:
            if older.instance != instance:
                gone.append(older.instance)
                self._log.warning("superseded", site=site, older=older.instance, newer=instance)
            older.superseded_by = instance
            older.woken.set()
        lease = Lease(site, instance)
        self._leases[site] = lease
        try:
            yield lease
        finally:
            if self._leases.get(site) is lease:
                del self._leases[site]

    def notify(self, change: Change) -> None:
        """Wake those whom a committed change concerns; for `Registry.subscribe`, any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed() and (change.sites or change.everyone):
            loop.call_soon_threadsafe(self._wake, change)

    def drain(self) -> None:
        """End every stream: the coordinator stops."""
        self._draining = True
        self._wake(Change(everyone=True))

    @property
    def draining(self) -> bool:
        """Whether the coordinator stops."""
        return self._draining

    def sites(self) -> set[str]:
        """Return the sites that watch now."""
        return set(self._leases)

    def _wake(self, change: Change) -> None:
        if change.everyone:
            for lease in self._leases.values():
                lease.woken.set()
        else:
            for site in change.sites & self._leases.keys():
                self._leases[site].woken.set()
