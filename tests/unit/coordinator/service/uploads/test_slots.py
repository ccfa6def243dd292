"""Places of upload streams: bounded, and never all in the hands of those who send nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rootstock.common.errors import UnreachableError
from rootstock.coordinator.service.uploads.slots import (
    SLOW_BYTES_PER_SECOND,
    WINDOW_SECONDS,
    Messages,
    Slots,
)
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """One lab's stream, which sends when it is told to."""

    def __init__(self, slots: Slots, site: str) -> None:
        self.site = site
        self._queue: asyncio.Queue[int | None] = asyncio.Queue()
        self.task = asyncio.create_task(slots.run(site, self._messages(), self._take))

    async def send(self, count: int) -> None:
        self._queue.put_nowait(count)
        await asyncio.sleep(0.01)

    async def end(self) -> int:
        self._queue.put_nowait(None)
        return await self.task

    async def _messages(self) -> AsyncIterator[pb.UploadRequest]:
        while (count := await self._queue.get()) is not None:
            yield pb.UploadRequest(data=bytes(count))

    async def _take(self, messages: Messages) -> int:
        return sum([len(message.data) async for message in messages])


async def opened(slots: Slots, *sites: str) -> list[Sender]:
    senders = [Sender(slots, site) for site in sites]
    await asyncio.sleep(0.01)
    return senders


FAST = int(SLOW_BYTES_PER_SECOND * WINDOW_SECONDS * 4)


async def test_streams_of_all_labs_together_are_bounded() -> None:
    slots = Slots(in_all=2)
    cat, dog = await opened(slots, "cat-lab", "dog-lab")
    (cow,) = await opened(slots, "cow-lab")
    with pytest.raises(UnreachableError, match="2 upload streams are open, the limit is 2"):
        await cow.task
    await cat.send(10)
    assert await cat.end() == 10
    (cow,) = await opened(slots, "cow-lab")
    assert (await cow.end(), await dog.end()) == (0, 0)


async def test_a_lab_without_a_place_gets_one_of_a_lab_that_has_several() -> None:
    slots = Slots(in_all=4, per_site=3)
    *cats, dog = await opened(slots, "cat-lab", "cat-lab", "cat-lab", "dog-lab")
    (cow,) = await opened(slots, "cow-lab")
    assert [cat.task.done() for cat in cats].count(True) == 1
    (gone,) = [cat for cat in cats if cat.task.done()]
    with pytest.raises(UnreachableError, match="gave its place to another lab; what was sent"):
        gone.task.result()
    # Whoever has a place already drives nobody out.
    (again,) = await opened(slots, "cat-lab")
    with pytest.raises(UnreachableError, match="4 upload streams are open"):
        await again.task
    await cow.send(3)
    assert await cow.end() == 3
    assert not dog.task.done()
    for left in (*[cat for cat in cats if cat is not gone], dog):
        await left.end()


@pytest.mark.parametrize("trickle", [0, 1, SLOW_BYTES_PER_SECOND // 2])
@pytest.mark.parametrize("burst", [0, 10 * FAST])
async def test_a_slow_stream_gives_its_place_when_another_lab_waits(
    trickle: int, burst: int
) -> None:
    clock = Clock()
    slots = Slots(in_all=2, clock=clock)
    slow, fast = await opened(slots, "slow-lab", "fast-lab")
    (waits,) = await opened(slots, "cow-lab")
    with pytest.raises(UnreachableError):  # nobody is known to be slow yet
        await waits.task
    if burst:
        await slow.send(burst)
    for _ in range(2):
        for _ in range(int(WINDOW_SECONDS)):
            clock.now += 1.0
            if trickle:
                await slow.send(trickle)
            await fast.send(FAST // int(WINDOW_SECONDS))
    clock.now += 0.5
    (cow,) = await opened(slots, "cow-lab")
    assert slow.task.done()
    with pytest.raises(UnreachableError, match="gave its place"):
        await slow.task
    assert not fast.task.done()
    assert (await cow.end(), await fast.end()) == (0, 2 * FAST)


async def test_fast_streams_keep_their_places() -> None:
    clock = Clock()
    slots = Slots(in_all=2, clock=clock)
    both = await opened(slots, "cat-lab", "dog-lab")
    for _ in range(30):
        clock.now += 1.0
        for each in both:
            await each.send(2 * SLOW_BYTES_PER_SECOND)
    (cow,) = await opened(slots, "cow-lab")
    with pytest.raises(UnreachableError, match="2 upload streams are open"):
        await cow.task
    assert [await each.end() for each in both] == [60 * SLOW_BYTES_PER_SECOND] * 2


async def test_a_call_that_is_cut_frees_its_place() -> None:
    slots = Slots(in_all=1)
    (cat,) = await opened(slots, "cat-lab")
    cat.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cat.task
    (dog,) = await opened(slots, "dog-lab")
    assert await dog.end() == 0
