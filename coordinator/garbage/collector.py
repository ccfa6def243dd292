"""Collects a coordinator's garbage, now and then or when it is asked to."""

from __future__ import annotations

import asyncio
import time
from threading import Event

import structlog

from rootstock.common.artifacts.gc import Collection, collect
from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import RootstockError
from rootstock.common.protocol import Heads, Plan
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.areas import private
from rootstock.coordinator.garbage.roots import needed
from rootstock.coordinator.plan.heads import CurrentHeads
from rootstock.coordinator.registry import Registry


def collect_garbage(
    registry: Registry,
    store: BlobStore,
    plan: Plan,
    heads: Heads | None,
    *,
    grace_seconds: float,
    dry_run: bool = False,
    stop: Event | None = None,
) -> Collection:
    """Delete the blobs of a store that a coordinator does not need.

    Parameters
    ----------
    registry, store, plan, heads
        The coordinator's; other processes may work on them.
    grace_seconds
        Younger blobs stay: a process may be about to refer to them.
    dry_run, stop
        See `rootstock.common.artifacts.gc.collect`.

    Raises
    ------
    ConflictError, NotFoundError, SchemaError, StorageError
        See `needed`; nothing is deleted then.
    """
    before = time.time() - grace_seconds  # first: what is put from now on is younger
    live = needed(registry, store, plan, heads)
    found = collect(store, live, before=before, dry_run=dry_run, stop=stop)
    return found.model_copy(update={"kept": found.kept | private(store)})


class Collector:
    """Collects the garbage of a coordinator that runs."""

    def __init__(self, context: CoordinatorContext, heads: CurrentHeads) -> None:
        self._context = context
        self._heads = heads
        self._lock = asyncio.Lock()
        self._log = structlog.get_logger("garbage")

    async def collect(self) -> Collection:
        """Collect now, one at a time; see `collect_garbage`."""
        stop = Event()
        try:
            async with self._lock:
                found = await asyncio.to_thread(self._collect, stop)
        finally:
            stop.set()  # a thread cannot be cancelled
        self._log.info("garbage.collected", **found.deleted.model_dump())
        return found

    def _collect(self, stop: Event) -> Collection:
        context = self._context
        return collect_garbage(
            context.registry,
            context.store,
            context.plan,
            self._heads(),
            grace_seconds=context.config.garbage.grace_seconds,
            stop=stop,
        )

    async def run(self) -> None:
        """Collect now and then until cancelled."""
        settings = self._context.config.garbage
        while settings.automatic:
            try:
                await self.collect()
            except RootstockError as error:  # the next time may do better
                self._log.warning("garbage.not_collected", error=str(error))
            await asyncio.sleep(settings.interval_seconds)
