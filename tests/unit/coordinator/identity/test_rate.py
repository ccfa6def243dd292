from __future__ import annotations

from rootstock.coordinator.identity import rate
from rootstock.coordinator.identity.rate import RateLimit
from tests.support.registry_uploads import Clock


def test_a_key_has_a_burst_and_then_a_rate() -> None:
    clock = Clock()
    limit = RateLimit(0.5, 3, clock)
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 2]
    assert limit.wait("b") == 0
    clock.now += 2
    assert [limit.wait("a"), limit.wait("a")] == [0, 2]
    clock.now += 1e6
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 2]


def test_memory_is_bounded() -> None:
    limit = RateLimit(1, 1, Clock())
    for number in range(rate.MAX_KEYS + 100):
        limit.wait(str(number))
    assert len(limit._buckets) == rate.MAX_KEYS
