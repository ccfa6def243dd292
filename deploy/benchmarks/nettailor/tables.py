"""The rows as a table: for a terminal of 80 columns, and for the results page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from deploy.benchmarks.intervals import Interval
from deploy.benchmarks.nettailor.rows import Row, average, names

TITLE = "One backbone tailored to tasks of different difficulty"
HEADING = f"{TITLE}\n%, mean and half a 95% interval over seeds; latency: ratio to the original"
_COLUMNS = {
    "teacher": "teacher_error",
    "tailored": "error",
    "params −": "params_removed",
    "FLOPs −": "flops_removed",
    "new": "new_params_share",
    "latency": "latency_ratio",
}
NOTES = (
    "*Teacher*: error of the fine-tuned original on test images; *tailored*: of the leanest net "
    "that the search found within 0.5 points of it on training images held apart. Removed "
    "parameters and FLOPs, and the parameters that are new with a task, are shares of the "
    "original's. Latency: seconds of a pass of 32 images by the original's in the same process, "
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
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    head, *lines = grid(rows)
    for place, title in enumerate(head):
        table.add_column(title, justify="left" if place == 0 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def markdown(rows: Sequence[Row]) -> str:
    """Return the table for the results page."""
    head, *lines = grid(rows)
    return "\n".join(_line(cells) for cells in (head, ["---"] * len(head), *lines)) + "\n"


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head and a line for each task."""
    lines = [["task", *_COLUMNS, "met"]]
    for task in names(rows):
        found = [row for row in rows if row.task == task]
        shown = [
            _ratio(average(rows, task, what)) if what == "latency_ratio" else
            str(average(rows, task, what))
            for what in _COLUMNS.values()
        ]  # fmt: skip
        lines.append([task, *shown, f"{sum(row.met for row in found)}/{len(found)}"])
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


def _ratio(found: Interval) -> str:
    return f"{found.mean:.2f}" + ("" if found.half is None else f" ±{found.half:.2f}")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
