from __future__ import annotations

from rootstock.coordinator.identity import rate
from rootstock.coordinator.identity.rate import RateLimit
from tests.support.registry_uploads import Clock


def test_a_key_has_a_burst_and_then_a_rate() -> None:
    clock = Clock()
    limit = RateLimit(0.5, 3, clock)
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    assert limit.allows("b")
    clock.now += 2
    assert [limit.allows("a"), limit.allows("a")] == [True, False]
    clock.now += 1e6
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]


def test_memory_is_bounded() -> None:
    limit = RateLimit(1, 1, Clock())
    for number in range(rate.MAX_KEYS + 100):
        limit.allows(str(number))
    assert len(limit._buckets) == rate.MAX_KEYS
