"""The rows as a table: for a terminal of 80 columns, and for the results page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.benchmarks.harness import outcome
from tests.benchmarks.harness.intervals import Interval
from tests.benchmarks.papers.nettailor.rows import Row, average, names

TITLE = "One backbone tailored to tasks of different difficulty"
HEADING = f"{TITLE}\n%, mean and half a 95% interval over seeds; latency: ratio to the original"
_COLUMNS = {
    "teacher": ("teacher_error", 1),
    "tailored": ("error", 1),
    "params −": ("params_removed", 0),
    "FLOPs −": ("flops_removed", 0),
    "new": ("new_params_share", 1),
    "latency": ("latency_ratio", 2),
}
"""What stands in a column, and its decimals."""
NOTES = (
    "*Teacher*: error of the fine-tuned original on test images; *tailored*: of the leanest net "
    "that the search found within 0.5 points of it on training images held apart. Removed "
    "parameters and FLOPs, and the parameters that are new with a task, are shares of the "
    "original's. Latency: seconds of a pass of 8 images by the original's in the same process, "
    "the fastest of several in turns. The universal blocks, BatchNorm's running statistics "
    "included, are the backbone's and shared; proxies with their BatchNorm, α and head are a "
    "task's own. Backbone: trained on four fifths of CIFAR-10's training images; task `cifar10` "
    "are the others."
)
PAPER = (
    "Paper (ResNet-34 of ImageNet): parameters and FLOPs removed SVHN 73.4% and 45.8%, VOC 36.1% "
    "(parameters); about 8% new parameters a task."
)


def terminal(rows: Sequence[Row]) -> Table:
    """Return the table for people."""
    return outcome.terminal(grid(rows))


def markdown(rows: Sequence[Row]) -> str:
    """Return the table for the results page."""
    return outcome.markdown(grid(rows))


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head and a line for each task."""
    lines = [["task", *_COLUMNS]]
    for task in names(rows):
        found = [(average(rows, task, what), places) for what, places in _COLUMNS.values()]
        lines.append([task, *(_rounded(one, places) for one, places in found)])
    return lines


def unmet(rows: Sequence[Row]) -> list[str]:
    """Say of each search that found nothing within the tolerance what became of it."""
    return [
        f"{row.task}, seed {row.seed}: no net is within the tolerance of the original "
        f"({100 - row.finetune_held_accuracy:.1f}% on images held apart); the full augmented net "
        f"was kept ({100 - row.held_accuracy:.1f}%)"
        for row in rows
        if not row.met
    ]


def _rounded(found: Interval, places: int) -> str:
    half = "" if found.half is None else f" ±{found.half:.{places}f}"
    return f"{found.mean:.{places}f}{half}"
