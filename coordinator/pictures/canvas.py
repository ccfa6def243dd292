"""Figures without matplotlib's global state: safe in threads, needs no display."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rootstock.common.errors import ConfigurationError
from rootstock.common.files import write_bytes

# A matplotlibrc in the current folder is for the user's own charts.
matplotlib.rcdefaults()

INK = "#2b2b2b"
QUIET = "#8a8f98"
CATEGORY = "#cfe3f5"
TASK = "#d9ead3"
ADAPTER = "#fde8c0"
NEW = "#d62728"
NEW_FILL = "#fbdcdc"
DOTS_PER_INCH = 150


MOST_DOTS = 12_000
"""The most along a picture's longer side; a larger net is drawn with fewer dots an inch."""

SUFFIXES = (".png", ".svg")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of that size in inches."""
    dots = min(DOTS_PER_INCH, MOST_DOTS / max(width, height))
    figure = Figure(figsize=(width, height), dpi=dots, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def require_suffix(path: Path) -> None:
    """Refuse a file's suffix that is not written, before drawing."""
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"{path}: a picture is written as {' or '.join(SUFFIXES)}, not as '{path.suffix}'; "
            f"name it {path.with_suffix(SUFFIXES[0]).name}"
        )


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or SVG, whole or not at all; the same figure gives the same bytes."""
    require_suffix(path)
    buffer = io.BytesIO()
    if path.suffix == ".svg":
        # Text stays text, so that names can be searched; ids do not change from run to run.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rootstock"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    else:
        # matplotlib would note its version in the file: pictures should not change with it.
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return path


def shortened(name: str, length: int) -> str:
    """Cut a name that is too long for its box, with an ellipsis."""
    return name if len(name) <= length else name[: length - 1] + "…"
