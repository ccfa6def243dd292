"""How a stop travels up from deep work."""

from __future__ import annotations

import threading


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The operator asked the agent to stop; everything on disk is resumable."""


def check(stop: threading.Event) -> None:
    """Raise `Stopped` if the agent was asked to stop."""
    if stop.is_set():
        raise Stopped
