"""Progress, not wall-clock, decides a time-out: N idle seconds without new bytes or steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rootstock.common.errors import UnreachableError


class IdleWatch:
    """Cancels a streaming call after so many seconds without progress.

    ::

        with IdleWatch(call.cancel, seconds=60, what="the download") as watch:
            for message in call:
                watch.progress()

    `cancel` ends the call, from another thread; the call's own error then ends the block. `what` is
    how the error names the call.
    """

    def __init__(self, cancel: Callable[[], object], *, seconds: float, what: str) -> None:
        self._cancel = cancel
        self._seconds = seconds
        self._what = what
        self._last = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="idle-watch", daemon=True)
        self.expired = False

    def __enter__(self) -> IdleWatch:
        self._last = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def progress(self) -> None:
        """Note that bytes were sent or received."""
        self._last = time.monotonic()

    def error(self) -> UnreachableError:
        """Return the error that an expired watch stands for."""
        return UnreachableError(
            f"{self._what} made no progress for {self._seconds:g} s; it resumes where it was: "
            "check the network, and that the peer's disk keeps up"
        )

    def _watch(self) -> None:
        while True:
            left = self._last + self._seconds - time.monotonic()
            if left <= 0:
                break
            if self._done.wait(left):
                return
        self.expired = True
        self._cancel()
