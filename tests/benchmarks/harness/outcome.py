"""What reports have in common: their JSON, their goals at a terminal, how sizes are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.benchmarks.harness import results
from tests.benchmarks.harness.goal import Goal

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Grid = Sequence[Sequence[str]]
"""A table's head, and its lines."""

DEFAULT = "default"
"""The size that no word and no name mentions."""


def as_json(
    rows: Sequence[DataclassInstance],
    goals: Sequence[Goal],
    budget: DataclassInstance,
    command: str,
    seconds: float,
) -> dict[str, Any]:
    """Return a measurement's JSON (DESIGN section 8)."""
    return {
        "rows": [asdict(row) for row in rows],
        "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in goals],
        "budget": asdict(budget),
        "command": command,
        "machine": results.machine(),
        "seconds": round(seconds, 1),
    }


def show_goals(goals: Sequence[Goal], console: Console) -> None:
    """Print a line a goal."""
    for goal in goals:
        console.print(f"{goal.verdict:<7} {goal.what}: {goal.ours} ({goal.bar})", soft_wrap=True)


def terminal(grid: Grid, *, left: int = 1) -> Table:
    """Return a table for people; columns after the first `left` are numbers.

    The second column wraps where it is text.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    head, *lines = grid
    for place, title in enumerate(head):
        text = place < left
        table.add_column(
            title, justify="left" if text else "right", no_wrap=not (text and place == 1)
        )
    for line in lines:
        table.add_row(*line)
    return table


def markdown(grid: Grid) -> str:
    """Return a table for the results page."""
    head, *lines = grid
    shown = (head, ["---"] * len(head), *lines)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in shown) + "\n"


def named(stem: str, size: str) -> str:
    """Name a section and its pictures: a run of another size replaces none."""
    return stem if size == DEFAULT else f"{stem}-{size}"


def size_words(size: str, device: str = "cpu") -> list[str]:
    """Return a command's words for a size and a device; none for what is taken anyhow."""
    words = [] if size == DEFAULT else [f"--{size}"]
    return words if device == "cpu" else [*words, f"--device {device}"]
