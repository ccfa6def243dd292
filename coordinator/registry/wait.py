"""Waiting for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rootstock.coordinator.registry import Change, Registry

T = TypeVar("T")

RESYNC_SECONDS = 300.0
"""Whoever waits for a change looks again after this long: one may have got lost with its writer."""


async def wait_for(registry: Registry, merge_id: str, look: Callable[[], T | None]) -> T:
    """Look, in a thread, now and at each change of a merge; return the first that is not None."""
    news = asyncio.Event()
    with setting(news, registry, lambda change: merge_id in change.ids):
        while True:
            news.clear()
            found = await asyncio.to_thread(look)
            if found is not None:
                return found
            await woken(news, RESYNC_SECONDS)


@contextmanager
def setting(
    event: asyncio.Event, registry: Registry, concerns: Callable[[Change], bool]
) -> Iterator[None]:
    """Set an event of the running loop at each change that concerns it."""
    loop = asyncio.get_running_loop()

    def wake(change: Change) -> None:
        if concerns(change):
            loop.call_soon_threadsafe(event.set)

    unsubscribe = registry.subscribe(wake)
    try:
        yield
    finally:
        unsubscribe()


async def woken(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; return False if it is not set in that time."""
    try:
        # Not `wait_for`, which loses a cancellation that comes at the same time (Python 3.11).
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
