"""Which signals end a process of ours."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a supervisor's request, a terminal that is closed."""


def ending() -> list[signal.Signals]:
    """Return those that end this process: what is ignored stays ignored, `nohup` means it."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in ENDING if not (ignored and number == signal.SIGHUP)]
