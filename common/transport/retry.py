"""The retry policy: after `UnreachableError` alone, with full jitter."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from rootstock.common.errors import BusyError, UnreachableError


def retrying(
    *,
    longest_seconds: float,
    patience_seconds: float | None = None,
    first_seconds: float = 0.5,
    stop: threading.Event | None = None,
    on_retry: Callable[[BaseException, float], None] | None = None,
) -> Retrying:
    """Return a policy: ``retrying(longest_seconds=20)(function, argument)``.

    Waits are uniform in [0, min(longest, first · 2^k)] (full jitter), so that labs cut
    off together do not all come back together; the agent's longest wait is
    `network.retry_cap_seconds` in site.toml. Only a peer that does not answer, or says that it
    has no room now, is worth another try: a refusal, a wrong address's `ConfigurationError` or a
    full disk here would fail again. After `patience_seconds` there is no new try; None is as long
    as it takes. One that says when it may have room (`BusyError`) is left alone for that long, and
    a little more. Setting `stop` ends a wait, and the trying, at once: the last error is then
    raised.
    `on_retry` is called before each wait, with the error and the seconds until the next try.
    """
    event = stop or threading.Event()
    limit: stop_base = stop_when_event_set(event)
    if patience_seconds is not None:
        limit = limit | stop_after_delay(patience_seconds)

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if on_retry is not None and error is not None and state.next_action is not None:
            on_retry(error, state.next_action.sleep)

    jittered = wait_random_exponential(multiplier=first_seconds, max=longest_seconds)

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_seconds if isinstance(error, BusyError) else 0.0
        return asked + jittered(state)

    return Retrying(
        retry=retry_if_exception_type(UnreachableError),
        wait=pause,
        stop=limit,
        sleep=sleep_using_event(event),
        before_sleep=tell,
        reraise=True,
    )
