"""Which upload streams are open, and which one gives its place to another lab's."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from rootstock.common.errors import BusyError
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

T = TypeVar("T")

STREAMS = 64
"""Streams at once: at some 3 MiB each (a chunk that waits, one that comes, its window), 200 MiB.
Labs beyond that try again later, with what they have sent kept."""

STREAMS_PER_SITE = 4
"""An agent sends one blob at a time; after a cut, older streams may live here for a while."""

WINDOW_SECONDS = 10.0
"""Over so long a stream's speed is measured."""

SLOW_BYTES_PER_SECOND = 64 << 10
"""A slower stream keeps its place only as long as nobody waits for one."""

Messages = AsyncIterator[pb.UploadRequest]


class Stream:
    """One open stream, and how fast it is."""

    def __init__(self, site: str, now: float) -> None:
        self.site = site
        self.job: asyncio.Task[Any] | None = None
        self.evicted = False
        self._began = now
        self._window = 0
        self._bytes = self._bytes_before = 0

    def arrived(self, count: int, now: float) -> None:
        """Count bytes that came."""
        self._move(now)
        self._bytes += count

    def speed(self, now: float) -> float:
        """Return bytes a second over the last whole window; infinite before there was one."""
        self._move(now)
        return self._bytes_before / WINDOW_SECONDS if self._window else math.inf

    def _move(self, now: float) -> None:
        """Begin another window, if it is time."""
        window = int((now - self._began) // WINDOW_SECONDS)
        if window != self._window:
            self._bytes_before = self._bytes if window == self._window + 1 else 0
            self._window, self._bytes = window, 0


class Slots:
    """Bounds the streams that are open, for each uses memory. Use from one event loop.

    Where all places are taken, a lab that has none gets one of a lab that has several, or of a
    stream that is slow: what was sent is kept, and is resumed when there is room.
    """

    def __init__(
        self,
        in_all: int = STREAMS,
        per_site: int = STREAMS_PER_SITE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_all = in_all
        self._per_site = per_site
        self._clock = clock
        self._open: set[Stream] = set()

    async def run(
        self,
        site: str,
        messages: Messages,
        take: Callable[[Messages], Coroutine[Any, Any, T]],
    ) -> T:
        """Take a stream's messages in a place of its own.

        BusyError if there is no place, or if this one had to be given to another lab.
        """
        stream = self._admitted(site)
        job: asyncio.Task[T] = asyncio.create_task(take(_Counted(messages, stream, self._clock)))
        stream.job = job
        try:
            return await job
        except asyncio.CancelledError:
            if stream.evicted and job.done():
                raise BusyError(
                    f"all {self._in_all} upload streams are taken, and this one gave its place to "
                    "another lab; what was sent is kept: begin the upload again to resume"
                ) from None
            raise
        finally:
            self._open.discard(stream)

    def _admitted(self, site: str) -> Stream:
        mine = sum(stream.site == site for stream in self._open)
        if mine >= self._per_site:
            raise BusyError(
                f"site '{site}' has {mine} upload streams open, the limit is {self._per_site}; end "
                "those, or try again later"
            )
        if len(self._open) >= self._in_all:
            victim = None if mine else self._victim()
            if victim is None or victim.job is None:
                raise BusyError(
                    f"{len(self._open)} upload streams are open, the limit is {self._in_all}; try "
                    "again later"
                )
            victim.evicted = True
            victim.job.cancel()
            self._open.discard(victim)
        stream = Stream(site, self._clock())
        self._open.add(stream)
        return stream

    def _victim(self) -> Stream | None:
        """Return the stream that a lab without any may replace."""
        now = self._clock()
        counts = Counter(stream.site for stream in self._open)
        most = max(counts.values())
        if most > 1:
            several = [stream for stream in self._open if counts[stream.site] == most]
            return min(several, key=lambda stream: stream.speed(now))
        slowest = min(self._open, key=lambda stream: stream.speed(now))
        return slowest if slowest.speed(now) < SLOW_BYTES_PER_SECOND else None


class _Counted:
    """Counts a stream's messages as they are taken; keeps none, which a generator would."""

    def __init__(self, messages: Messages, stream: Stream, clock: Callable[[], float]) -> None:
        self._messages = messages
        self._stream = stream
        self._clock = clock

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> pb.UploadRequest:
        message = await anext(self._messages)
        self._stream.arrived(message.ByteSize(), self._clock())
        return message
