"""Sends the coordinator's structured log to a stream."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer


def log_to(stream: TextIO) -> None:
    """Log JSON lines, ours and the libraries', from warnings up for the latter."""
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(levelname)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without local variables: keys and images are among them.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
