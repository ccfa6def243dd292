"""Waiting for something to be in the registry, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rootstock.coordinator.registry import Change, Registry

T = TypeVar("T")


async def wait_for(registry: Registry, look: Callable[[], T | None]) -> T:
    """Look at each commit to the registry, and return what was found first.

    Parameters
    ----------
    registry
        Wakes this at every commit.
    look
        Reads the registry, in a thread; None goes on waiting.
    """
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake(_: Change) -> None:
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
