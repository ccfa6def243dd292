import threading
import time

import pytest

from rootstock.common.errors import (
    BusyError,
    ConfigurationError,
    IntegrityError,
    RootstockError,
    StorageError,
    UnreachableError,
)
from rootstock.common.transport.retry import retrying


class Peer:
    """Fails so many times, then answers."""

    def __init__(self, error: RootstockError, failures: int) -> None:
        self.error = error
        self.failures = failures
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "answer"


def test_a_peer_that_comes_back_is_tried_until_it_answers() -> None:
    peer = Peer(UnreachableError("gone"), 5)
    told: list[tuple[str, float]] = []
    policy = retrying(
        longest_seconds=0.01, first_seconds=0.001, on_retry=lambda e, s: told.append((str(e), s))
    )
    assert policy(peer) == "answer"
    assert peer.calls == 6
    assert [said for said, _ in told] == ["gone"] * 5
    assert all(0 <= seconds <= 0.01 for _, seconds in told)
    assert len({seconds for _, seconds in told}) > 1  # jitter


@pytest.mark.parametrize("kind", [IntegrityError, ConfigurationError, StorageError, RootstockError])
def test_what_would_fail_again_is_raised_at_once(kind: type[RootstockError]) -> None:
    peer = Peer(kind("no"), 1)
    with pytest.raises(kind, match="no"):
        retrying(longest_seconds=0.01)(peer)
    assert peer.calls == 1


def test_patience_ends_with_the_peers_own_error() -> None:
    peer = Peer(UnreachableError("gone"), 1_000_000)
    with pytest.raises(UnreachableError, match="gone"):
        retrying(patience_seconds=0.1, longest_seconds=0.001)(peer)
    assert peer.calls > 1


def test_a_busy_peer_is_left_alone_for_as_long_as_it_asks() -> None:
    waits: list[float] = []
    peer = Peer(BusyError("no room", retry_seconds=0.2), 3)
    policy = retrying(
        longest_seconds=0.01, first_seconds=0.001, on_retry=lambda _, s: waits.append(s)
    )
    began = time.monotonic()
    assert policy(peer) == "answer"
    assert time.monotonic() - began >= 0.6
    assert all(0.2 <= seconds <= 0.21 for seconds in waits)


def test_waits_are_uniform_up_to_a_growing_cap() -> None:
    waits: list[float] = []
    stop = threading.Event()

    def note(_: BaseException, seconds: float) -> None:
        waits.append(seconds)

    policy = retrying(first_seconds=0.001, longest_seconds=0.002, on_retry=note)
    for _ in range(50):
        assert policy(Peer(UnreachableError("gone"), 3)) == "answer"
    first, later = waits[::3], waits[2::3]
    assert max(first) <= 0.001
    assert 0.001 < max(later) <= 0.002
    assert min(later) < 0.001  # full jitter reaches down to zero
    assert not stop.is_set()


def test_stopping_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    started = time.monotonic()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(UnreachableError):
        retrying(longest_seconds=600, first_seconds=600, stop=stop)(
            Peer(UnreachableError("gone"), 100)
        )
    assert time.monotonic() - started < 30
