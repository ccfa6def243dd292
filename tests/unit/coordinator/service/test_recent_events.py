from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootstock.coordinator.registry import NewEvent, Registry
from rootstock.coordinator.service.recent_events import KEPT, RecentEvents

LIMIT = 100


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    opened.sites.join("cat-lab", b"c" * 32)
    opened.sites.join("dog-lab", b"d" * 32)
    yield opened
    opened.close()


def append(registry: Registry, *sites: str | None) -> int:
    return max(registry.events.append(NewEvent(site, "merge", b"{}")) for site in sites)


def test_all_whom_a_change_wakes_find_it_though_it_is_read_once(registry: Registry) -> None:
    append(registry, "cat-lab")
    read: list[int] = []
    since = registry.events.since

    def counted(cursor: int, limit: int) -> object:
        read.append(cursor)
        return since(cursor, limit)

    registry.events.since = counted  # type: ignore[assignment,method-assign]

    async def all_of(count: int) -> None:
        recent = RecentEvents(registry.events)
        newest = append(registry, None)
        assert await recent.after("cat-lab", newest, LIMIT) == []
        told = append(registry, None, "cat-lab", "dog-lab")
        read.clear()
        recent.changed()
        found = await asyncio.gather(
            *(recent.after(f"lab-{number}", newest, LIMIT) for number in range(count)),
            recent.after("cat-lab", newest, LIMIT),
        )
        assert [[event.cursor for event in each] for each in found[:count]] == [[told - 2]] * count
        assert [event.site for event in found[count]] == [None, "cat-lab"]
        assert len(read) == 1

    asyncio.run(all_of(50))


def test_a_change_while_the_table_is_read_is_found_by_who_asks_after_it(
    registry: Registry,
) -> None:
    async def both() -> None:
        recent = RecentEvents(registry.events)
        await recent.after("cat-lab", 0, LIMIT)
        recent.changed()
        first = asyncio.create_task(recent.after("cat-lab", 0, LIMIT))
        await asyncio.sleep(0)  # its read has begun
        append(registry, "cat-lab")
        recent.changed()
        assert len(await recent.after("cat-lab", 0, LIMIT)) == 1
        await first

    asyncio.run(both())


@pytest.mark.parametrize("behind", [1, KEPT, KEPT + 1, 2 * KEPT + 5])
def test_one_that_is_far_behind_gets_all_in_order(registry: Registry, behind: int) -> None:
    async def ask() -> list[int]:
        recent = RecentEvents(registry.events)
        await recent.after("cat-lab", 0, LIMIT)
        for _ in range(behind):
            append(registry, "cat-lab")
        recent.changed()
        cursors: list[int] = []
        while news := await recent.after("cat-lab", max(cursors, default=0), LIMIT):
            cursors += [event.cursor for event in news]
        return cursors

    found = asyncio.run(ask())
    assert len(found) == behind
    assert found == sorted(found)
