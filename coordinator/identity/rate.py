"""A limit on how often something may be tried: a bucket of tokens for each key."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000
"""Keys remembered; beyond, the one that was tried longest ago is forgotten."""


class RateLimit:
    """Lets `burst` tries through at once, and `per_second` more as time passes, for each key."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Count a try; return 0, or the seconds after which the next one is let through."""
        now = self._clock()
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - allowed, now)
        seconds = 0.0 if allowed else (1 - tokens) / self._per_second
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return seconds
