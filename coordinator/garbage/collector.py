"""Collects a coordinator's garbage, at intervals or when it is asked to."""

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
    """Delete the blobs of a store that a coordinator does not need; others may work on it.

    Blobs younger than the grace stay: a process may be about to refer to them. Nothing is deleted
    where it is not known what is needed: see `needed`.
    """
    before = time.time() - grace_seconds  # first: what is put from now on is younger
    live = needed(registry, store, plan, heads)
    garbage = collect(store, live, before=before, dry_run=dry_run, stop=stop)
    return garbage.model_copy(update={"kept": garbage.kept | private(store)})


class Collector:
    """Collects the garbage of one coordinator."""

    def __init__(self, context: CoordinatorContext, heads: CurrentHeads) -> None:
        self._context = context
        self._heads = heads
        self._lock = asyncio.Lock()
        self._log = structlog.get_logger("garbage")

    async def collect(self) -> Collection:
        """Collect in a thread, one collection at a time."""
        stop = Event()
        try:
            async with self._lock:
                garbage = await asyncio.to_thread(self.collect_now, stop)
        finally:
            stop.set()  # a thread cannot be cancelled
        self._log.info("garbage.collected", **garbage.deleted.model_dump())
        return garbage

    def collect_now(self, stop: Event | None = None) -> Collection:
        """Collect in this thread; see `collect_garbage`."""
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
        """Collect at intervals until cancelled."""
        settings = self._context.config.garbage
        while settings.automatic:
            try:
                await self.collect()
            except RootstockError as error:  # the next time may do better
                self._log.warning("garbage.collection_failed", error=str(error))
            await asyncio.sleep(settings.interval_seconds)
