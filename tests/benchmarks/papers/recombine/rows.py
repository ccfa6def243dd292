"""What a run measures, a line for each net that was put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

UPPER = "upper bound"
"""Each net as it was trained, with a rotation head of its own (paper, section 4)."""


@dataclass(frozen=True)
class Row:
    """One net; accuracies in percent."""

    setting: str
    method: str
    case: str
    """What is varied beside the method: a layer, a number of classes, an architecture, steps."""
    direction: str
    """"a>b": the extractor of a with the head of b, on images of a's task; in `uda` and `transfer`
    from the source to the target, whose images are judged on."""
    seed: int
    accuracy: float
    """With BatchNorm's statistics re-estimated, on the classes in common if there are others."""
    chance: float
    upper_bound: float | None = None
    """The upper bound's accuracy on the same images."""
    own_accuracy: float | None = None
    """Of the extractor with its own head, on all its classes."""
    kept_accuracy: float | None = None
    """As `accuracy`, with the statistics of the training."""
    correlation: float | None = None
    """Mean over channels of the correlation with the other extractor's channel."""
    permuted_correlation: float | None = None
    """The same under the best permutation of channels."""
    channel_correlations: tuple[float, ...] = ()


def bounded(rows: Sequence[Row]) -> list[Row]:
    """Fill in every row's upper bound: of its seed and the net it is judged beside.

    A bound that no case names serves all cases.
    """
    bounds = {
        (row.case, row.seed, row.direction.partition(">")[0]): row.accuracy
        for row in rows
        if row.method == UPPER
    }

    def bound(row: Row) -> float | None:
        net = row.direction.partition(">")[0]
        return bounds.get((row.case, row.seed, net), bounds.get(("", row.seed, net)))

    return [
        row if row.upper_bound is not None else replace(row, upper_bound=bound(row)) for row in rows
    ]
