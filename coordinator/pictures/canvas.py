"""Figures without matplotlib's global state: safe in threads, needs no display."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import write_bytes

INK = "#2b2b2b"
QUIET = "#8a8f98"
CATEGORY = "#cfe3f5"
TASK = "#d9ead3"
ADAPTER = "#fde8c0"
NEW = "#d62728"
NEW_FILL = "#fbdcdc"
DOTS_PER_INCH = 150


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of that size in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    buffer = io.BytesIO()
    # matplotlib would note its version in the file: pictures should not change with it.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return path


def shortened(name: str, length: int) -> str:
    """Cut a name that is too long for its box, with an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"
