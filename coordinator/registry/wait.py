"""Waiting for a change of one merge, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rootstock.coordinator.registry import Change, Registry

T = TypeVar("T")


async def wait_for(registry: Registry, merge_id: str, look: Callable[[], T | None]) -> T:
    """Look, in a thread, now and at each change of a merge; return the first that is not None."""
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake(change: Change) -> None:
        if merge_id in change.ids:
            loop.call_soon_threadsafe(news.set)

    unsubscribe = registry.subscribe(wake)
    try:
        while True:
            news.clear()
            found = await asyncio.to_thread(look)
            if found is not None:
                return found
            await news.wait()
    finally:
        unsubscribe()
