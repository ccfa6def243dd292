"""What a running agent keeps of itself: status.json, and the watch's cursor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from rootstock.common import times
from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError
from rootstock.common.files import storage_errors, write_bytes
from rootstock.common.identity.keys import fingerprint


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The operator asked the agent to stop; everything on disk is resumable."""


def check(stop: threading.Event | None) -> None:
    """Raise `Stopped` if a stop was asked for; a command has nothing but Ctrl-C: None."""
    if stop is not None and stop.is_set():
        raise Stopped


class Status(Document):
    """The content of status.json, replaced whole at each change."""

    site: str
    category: str
    phase: str
    """joining, planning, loading, training, shipping, watching, evaluating, refining, stopped,
    failed."""
    step: int = 0
    steps: int = 0
    """`step` of `steps` of the phase are done; 0 of 0 where there is nothing to count."""
    message: str = ""
    error_percent: float | None = None
    """The teacher's error on private validation data, once known."""
    shipped: str = ""
    """How much of the teacher net went over the wire, once it is received."""
    outcome: str = ""
    """What the coordinator said last of the teacher net: refused, merging, merged."""
    waiting: str = ""
    """Which questions wait for the day's budget (`consent`); empty: none."""
    at: str
    """When this was written, RFC 3339 in UTC."""


class StatusFile:
    """Writes status.json: at once when the phase changes, else a few times a second at most.

    `show` is called with all that is written. What is known of the teacher net is kept from the
    file of an earlier run.
    """

    PAUSE_SECONDS = 0.2

    def __init__(
        self,
        path: Path,
        site: str,
        category: str,
        show: Callable[[Status], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._site = site
        self._category = category
        self._show = show
        self._phase = ""
        self._written = 0.0
        self.error_percent: float | None = None
        self.shipped = ""
        self.outcome = ""
        self.waiting = ""
        try:
            earlier = Status.parse(path.read_bytes(), what=str(path))
        except (FileNotFoundError, SchemaError):  # none, or of another version: it starts empty
            return
        if earlier.category == category:
            self.error_percent, self.shipped = earlier.error_percent, earlier.shipped
            self.outcome = earlier.outcome

    def progress(self, phase: str, step: int = 0, steps: int = 0, message: str = "") -> None:
        """Say that `step` of `steps` of `phase` are done."""
        now = time.monotonic()
        recent = now - self._written < self.PAUSE_SECONDS
        if phase == self._phase and recent and step != steps:
            return
        self._phase, self._written = phase, now
        status = Status(
            site=self._site,
            category=self._category,
            phase=phase,
            step=step,
            steps=steps,
            message=message,
            error_percent=self.error_percent,
            shipped=self.shipped,
            outcome=self.outcome,
            waiting=self.waiting,
            at=times.now(),
        )
        write_bytes(self._path, status.model_dump_json().encode())
        self._show(status)


class Cursor(Document):
    """The last event of the watch stream that was dealt with."""

    cursor: int = Field(ge=0, lt=1 << 64)


def cursor_file(state: Path, coordinator: bytes) -> Path:
    """Return where the cursor of a coordinator's events is kept; others number theirs anew."""
    return state / "cursors" / f"{fingerprint(coordinator)}.json"


def read_cursor(path: Path) -> int:
    """Return the saved cursor, or 0: every event is then seen again, which costs only time."""
    if not path.exists():
        return 0
    with storage_errors(path):
        data = path.read_bytes()
    try:
        return Cursor.parse(data, what=str(path)).cursor
    except SchemaError as error:
        raise SchemaError(
            f"{error}; remove the file, and all events are looked at again"
        ) from error


def write_cursor(path: Path, cursor: int) -> None:
    """Save the cursor durably."""
    write_bytes(path, Cursor(cursor=cursor).canonical())
