"""The settings' tables: for a terminal of 80 columns, and for the results page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tests.benchmarks.harness import outcome
from tests.benchmarks.papers.recombine.request import TITLES
from tests.benchmarks.papers.recombine.rows import UPPER, Row, average, chosen

PAPER: dict[str, dict[str, float]] = {
    "analysis": {
        "independent": 10.6, "iiw": 25.1, "rp": 50.1, "dcc": 65.8, "iiw+rp+dcc": 76.7, UPPER: 85.6,
    },
    "incremental": {"iiw+rp+dcc": 72.7, "joint iiw+rp+dcc": 76.7, UPPER: 85.6},
}  # fmt: skip
"""The paper's recombination accuracies in percent: ResNet-56 on CIFAR-10 × STL-10, nine classes in
common. To be compared in order, not in value."""
NOTES = {
    "analysis": (
        "Stand-in for CIFAR-10 × STL-10: nets a and b learn from disjoint halves of CIFAR-10's "
        "training images, eight classes each, six in common, on which recombination is judged. "
        "*recombined*: the extractor of one net with the head of the other, BatchNorm's statistics "
        "re-estimated on unlabelled training images; *old BN*: with the statistics of the "
        "training; *own*: each net by itself on its eight classes; *corr.*: mean correlation of "
        "the two extractors' channels. Upper bound: each net by itself, with a rotation head of "
        "its own, on the classes in common."
    ),
    "incremental": (
        "As `analysis`, but the auxiliary heads learn with the first net (a in even runs, b in odd "
        "ones), are frozen, and the second net learns against them."
    ),
    "bound": "As `analysis`, but both nets learn all ten classes.",
    "split": (
        "As `analysis`, with IIW and RP, nets split after different blocks. The upper bound's are "
        "`analysis`'s."
    ),
    "uda": (
        "Mean accuracy over classes on the target's test images; directions are source>target. A "
        "net is trained on labelled images of the source with a rotation head; the head is frozen, "
        "the extractor learns rotations of the target's unlabelled images and goes back below its "
        "classifier. Source only: with the source's BatchNorm statistics; test-time BN: with "
        "statistics of the target's unlabelled training images. Upper bound: trained on the "
        "target's labels. Stand-in for CIFAR-10 × STL-10. The learning rate of the adaptation was "
        "chosen with labels of some of the targets' training images, one seed."
    ),
    "architectures": (
        "Three extractors, each brought to the head's width by a 1×1 convolution, learn CIFAR-10's "
        "first five classes together below one shared DCC head. The head is extended to ten "
        "classes and learns them above the frozen Wide ResNet; *carried over*: that head above "
        "each extractor (the Wide ResNet's column is its own). *Independent*: the Wide ResNet's "
        "head above extractors that were trained alone. Upper bound: each trained alone on all ten "
        "classes, with a rotation head. Telling the first five classes apart perfectly would give "
        "50."
    ),
    "transfer": (
        "Accuracy on the target's test images after 0 and more steps of fine-tuning, mean over "
        "sources and targets (grey: MNIST, USPS, Fashion-MNIST, CIFAR-10's animals and vehicles). "
        "*iiw+rp*: all nets began alike and learned against one frozen rotation head, of a net "
        "trained on CIFAR-10 images that no task has; *independent*: each with a rotation head of "
        "its own; *new head*: the latter's extractors below a head with initial weights."
    ),
    "classes": (
        "As `analysis`, with IIW and a DCC head that discriminates some of the six classes in "
        "common; recombination is judged on all six. RP, which needs none, beside it."
    ),
}
"""What was done, and how it differs from the paper."""
_ACROSS = {"uda": "direction", "architectures": "case", "transfer": "case"}
"""What stands side by side, in settings that measure one value."""
_DASH = "–"
_COLUMNS = {
    "recombined": "accuracy",
    "bound": "upper_bound",
    "own": "own_accuracy",
    "old BN": "kept_accuracy",
    "corr.": "correlation",
}


def heading(rows: Sequence[Row]) -> str:
    """Say what a setting's table shows."""
    chances = sorted({round(row.chance, 1) for row in rows})
    chance = " to ".join(map(str, dict.fromkeys((chances[0], chances[-1]))))
    return (
        f"{TITLES[rows[0].setting]}\n"
        f"accuracy in %, mean and 95% interval over seeds; chance {chance}"
    )


def terminal(rows: Sequence[Row]) -> Table:
    """Return the table of one setting."""
    return outcome.terminal(grid(rows))


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of one setting for the results page."""
    return outcome.markdown(grid(rows, papers=True))


def grid(rows: Sequence[Row], *, papers: bool = False) -> list[list[str]]:
    """Return the head and the lines of a setting's table."""
    across = _ACROSS.get(rows[0].setting)
    return _by_value(rows, papers=papers) if across is None else _pivoted(rows, across)


def _by_value(rows: Sequence[Row], *, papers: bool) -> list[list[str]]:
    """Return a line for each method and case, a column for each value."""
    known = PAPER.get(rows[0].setting, {})
    head = ["method", *_COLUMNS, *(["paper"] if papers and known else [])]
    lines = [head]
    for method, case in dict.fromkeys((row.method, row.case) for row in rows):
        found = chosen(rows, method, case)
        line = [f"{method} {case}".strip()]
        for value in _COLUMNS.values():
            shown = average(found, value)
            line.append(
                _DASH
                if shown is None
                else f"{shown.mean:.2f}"
                if value == "correlation"
                else str(shown)
            )
        if len(head) > len(line):
            line.append(f"{known[method]:.1f}" if method in known else _DASH)
        lines.append(line)
    return lines


def _pivoted(rows: Sequence[Row], across: str) -> list[list[str]]:
    """Return a line for each method, a column for each direction or case, and their mean."""
    columns = list(dict.fromkeys(str(getattr(row, across)) for row in rows))
    averaged = rows[0].setting != "transfer"  # a mean over steps would say nothing
    lines = [["method", *columns, *(["mean"] if averaged else [])]]
    for method in dict.fromkeys(row.method for row in rows):
        found = chosen(rows, method)
        each = [average([r for r in found if getattr(r, across) == name]) for name in columns]
        each += [average(found)] if averaged else []
        lines.append([method, *(str(one or _DASH) for one in each)])
    return lines
