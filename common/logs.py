"""Structured logs, one JSON object a line: the coordinator's to a stream, an agent's to a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from rootstock.common.files import storage_errors
from rootstock.common.text import plain

MAX_LOG_BYTES = 16 << 20
"""A log of this size is renamed to end in .1, in place of the one before: two are kept."""

Log = structlog.typing.FilteringBoundLogger

_PROCESSORS: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables: keys and images are among them.
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
)


def log_to(stream: TextIO) -> None:
    """Log JSON lines, ours and the libraries', from warnings up for the latter."""
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(levelname)s %(message)s")
    structlog.configure(
        processors=[*_PROCESSORS, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )


def _plain(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take out of a line what a terminal would obey: a coordinator's words are in some."""
    return {
        key: plain(text, len(text)) if isinstance(text, str) else text
        for key, text in event.items()
    }


@contextmanager
def open_log(path: Path, *also: structlog.typing.Processor, **bound: str) -> Iterator[Log]:
    """Append to a log file, made if missing, and made anew where it was renamed or removed.

    It has 16 MiB at most, and so has the one before it. `also` sees each event, `bound` is in
    every line. What cannot be written is raised.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Handler(path, encoding="utf-8")
    logger = logging.Logger(path.name)  # no part of the libraries' tree
    logger.addHandler(handler)
    try:
        yield structlog.wrap_logger(
            logger,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[
                *_PROCESSORS,
                _plain,
                *also,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        ).bind(**bound)
    finally:
        handler.close()


class _Handler(WatchedFileHandler):
    """Reopens a file that was rotated away, by others or here; does not hide a full disk."""

    def emit(self, record: logging.LogRecord) -> None:
        path = Path(self.baseFilename)
        with suppress(FileNotFoundError):
            if path.stat().st_size >= MAX_LOG_BYTES:
                path.replace(f"{path}.1")  # what is missing is opened anew
        super().emit(record)

    def handleError(self, record: Any) -> None:  # noqa: ARG002, N802  # logging's signature
        raise  # called while the error is handled
