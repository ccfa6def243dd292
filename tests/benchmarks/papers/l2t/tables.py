"""The table in the paper's form: for a terminal, and for the results page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.benchmarks.harness import outcome
from tests.benchmarks.papers.l2t.rows import Row, accuracy, counts, kinds

PAPER = {
    "scratch": (67.69, 65.18),
    "lwf": (69.23, 68.64),
    "at": (67.54, 74.19),
    "lwf+at": (68.75, 75.06),
    "fm-single": (69.40, 75.00),
    "fm": (69.97, 76.38),
    "l2t-w-single": (70.27, 74.35),
    "l2t-w": (70.02, 76.42),
    "l2t-ww": (70.96, 78.31),
}
"""The paper's table 1, TinyImageNet (ResNet-32) to CIFAR-100 and to STL-10 (VGG-9), all training
images: to be compared in order, not in value."""
_DASH = "–"


def terminal(rows: Sequence[Row]) -> Table:
    """Return the table for people at a terminal."""
    return outcome.terminal(grid(rows), left=2)


def heading(rows: Sequence[Row]) -> str:
    """Say what the table shows."""
    return f"Accuracy in % on {rows[0].target}'s test images, by training images a class"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table for the results page, with the paper's beside it."""
    head, *lines = grid(rows)
    shown = [[*head, "paper: CIFAR-100", "STL-10"]]
    for line in lines:
        papers = PAPER.get(line[0]) if "+" not in line[1] else None
        shown.append([*line, *((f"{n:.1f}" for n in papers) if papers else (_DASH, _DASH))])
    return outcome.markdown(shown)


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head and a line for each method and its sources."""
    columns = counts(rows)
    lines = [["method", "source", *map(str, columns)]]
    for kind in kinds(rows):
        found = (accuracy(rows, kind, samples) for samples in columns)
        lines.append([kind[0], kind[1] or _DASH, *(str(one or _DASH) for one in found)])
    return lines
