"""What a run measures, a line for each task and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.benchmarks.harness.intervals import Interval, over_seeds


@dataclass(frozen=True)
class Row:
    """One tailored net, in percent where nothing else is said."""

    task: str
    seed: int
    accuracy: float
    """Of the tailored net on test images."""
    finetune_accuracy: float
    """Of the fine-tuned original, the teacher."""
    params_removed: float
    flops_removed: float
    new_params_share: float
    """Parameters of this task alone, by all of the backbone's."""
    latency_ratio: float
    """Seconds a pass, by the original's; not in percent."""
    met: bool
    """Whether the search found a net within the tolerance, on the images held apart."""
    held_accuracy: float
    """On those."""
    finetune_held_accuracy: float
    blocks: tuple[str, ...]
    """Names of the backbone's, lowest first."""
    blocks_removed: int
    """Not in percent."""
    paths: tuple[tuple[int, int, float], ...]
    """(node, skip, α) of each path that was kept."""
    tries: tuple[tuple[int, int, float], ...]
    """(blocks left out, proxies kept, error on the images held apart) of each net of the search."""

    @property
    def error(self) -> float:
        """Return the tailored net's error on test images."""
        return 100 - self.accuracy

    @property
    def teacher_error(self) -> float:
        """Return the fine-tuned original's."""
        return 100 - self.finetune_accuracy


def names(rows: Iterable[Row]) -> list[str]:
    """Return the tasks in the order in which they come."""
    return list(dict.fromkeys(row.task for row in rows))


def average(rows: Sequence[Row], task: str, what: str) -> Interval:
    """Return the mean over seeds of a value of a task that has rows."""
    found = over_seeds((row.seed, float(getattr(row, what))) for row in rows if row.task == task)
    assert found is not None  # a number in every row
    return found
