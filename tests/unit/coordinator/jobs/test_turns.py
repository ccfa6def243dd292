"""Sites take turns, however many one has waiting."""

from __future__ import annotations

import asyncio

from rootstock.coordinator.jobs.turns import Turns


def test_a_site_with_many_waits_behind_another_s_first() -> None:
    order: list[str] = []

    async def work(turns: Turns, site: str) -> None:
        async with turns.of(site):
            order.append(site)
            await asyncio.sleep(0.001)

    async def run() -> None:
        turns = Turns()
        many = [asyncio.create_task(work(turns, "loud")) for _ in range(4)]
        await asyncio.sleep(0)
        cancelled = asyncio.create_task(work(turns, "gone"))
        others = [asyncio.create_task(work(turns, f"lab-{number}")) for number in range(2)]
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(*many, *others)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert order == ["loud", "lab-0", "lab-1", "loud", "loud", "loud"]
