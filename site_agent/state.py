"""What people and programs see of a running agent: agent.log (JSON lines) and status.json."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO

import structlog

from rootstock.common.documents import Document
from rootstock.common.files import storage_errors, write_bytes

Log = structlog.typing.FilteringBoundLogger


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
    at: str
    """When this was written, RFC 3339 in UTC."""


class Reporter(Protocol):
    """What long work tells about its progress."""

    def progress(self, phase: str, step: int, steps: int, message: str = "") -> None:
        """Say that `step` of `steps` of `phase` are done."""


class StatusFile:
    """Writes status.json: at once when the phase changes, else a few times a second at most."""

    PAUSE_SECONDS = 0.2

    def __init__(self, path: Path, site: str, category: str) -> None:
        self._path = path
        self._site = site
        self._category = category
        self._phase = ""
        self._written = 0.0
        self.error_percent: float | None = None
        self.shipped = ""

    def progress(self, phase: str, step: int = 0, steps: int = 0, message: str = "") -> None:
        """Say that `step` of `steps` of `phase` are done.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
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
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        write_bytes(self._path, status.model_dump_json().encode())


def open_log(path: Path, site: str) -> tuple[Log, TextIO]:
    """Open the agent's log: one JSON object a line, appended.

    Raises
    ------
    StorageError
        If the file cannot be opened for writing.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", buffering=1)
    logger = structlog.wrap_logger(
        structlog.WriteLogger(file),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
    return logger.bind(site=site), file
