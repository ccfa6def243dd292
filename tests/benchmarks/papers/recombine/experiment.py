"""``rootstock bench recombine``: the extractor of one net below the head of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from rootstock.common.errors import SchemaError
from tests.benchmarks.harness import experiment, tables
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.harness.rows import over
from tests.benchmarks.harness.tables import averaged
from tests.benchmarks.papers.recombine import extractors, goals, pair_settings, plots, transfer, uda
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.rows import UPPER, Row, bounded

TITLES = {
    "analysis": "Recombination accuracy of two nets on overlapping classes",
    "incremental": "The second net trained against frozen heads of the first",
    "bound": "Both nets on the same ten classes: how near to the upper bound",
    "split": "Recombination accuracy over the layer where nets split",
    "architectures": "One classifier above extractors of several architectures",
    "transfer": "Choosing a source to transfer from, with little fine-tuning or none",
    "uda": "Unsupervised domain adaptation by rotations, MNIST and USPS",
    "classes": "Recombination accuracy over the classes of the shared head",
}
MEASURES: dict[str, Callable[[Request[Budget], Workers], list[Row]]] = {
    "uda": uda.measure,
    "transfer": transfer.measure,
    "architectures": extractors.measure,
}
"""Settings that are not of pairs of nets."""
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
COLUMNS = {
    "recombined": averaged("accuracy"),
    "bound": averaged("upper_bound"),
    "own": averaged("own_accuracy"),
    "old BN": averaged("kept_accuracy"),
    "corr.": averaged("correlation", "{0.mean:.2f}"),
}
ACROSS = {"uda": "direction", "architectures": "case", "transfer": "case"}
"""What stands side by side, in settings that measure one value."""


@dataclass(frozen=True)
class Recombine(experiment.Experiment[Budget, Row]):
    setting: str

    @property
    def name(self) -> str:
        return f"recombine-{self.setting}"

    @property
    def title(self) -> str:
        return TITLES[self.setting]

    def words(self) -> list[str]:
        return ["recombine", f"--setting {self.setting}"]

    def measure(self, run: Workers) -> list[Row]:
        """Return all rows, seed by seed, in the order of methods."""
        if self.setting in MEASURES:
            return bounded(MEASURES[self.setting](self.request, run))
        return bounded(pair_settings.measure(self.setting, self.request, run))

    def goals(self, rows: Sequence[Row]) -> list[Goal]:
        return goals.goals(rows)

    def heading(self, rows: Sequence[Row]) -> str:
        chances = sorted({round(row.chance, 1) for row in rows})
        chance = " to ".join(map(str, dict.fromkeys((chances[0], chances[-1]))))
        return f"{self.title}\naccuracy in %, mean and 95% interval over seeds; chance {chance}"

    def grid(self, rows: Sequence[Row]) -> list[list[str]]:
        return grid(rows)

    def paragraphs(self, rows: Sequence[Row], seconds: float) -> Iterator[str]:
        budget, training = self.request.budget, self.request.budget.of(self.setting)
        yield (
            f"Accuracy in % on test images, mean over directions and {over(rows)}; chance "
            f"{rows[0].chance:.1f}. ResNet-{6 * budget.blocks + 2} of width {budget.width}, "
            f"{training.steps} minibatches of {training.batch} a net, budget '{budget.name}', "
            f"{self.request.device}. {round(seconds)} s, less what the cache held."
        )
        yield NOTES[self.setting]
        yield tables.markdown(grid(rows, papers=True))

    def pictures(self, rows: Sequence[Row], run: Workers) -> dict[str, Figure]:
        drawn = {"": plots.DRAWN[self.setting](rows)}
        if self.setting in ("analysis", "incremental", "bound"):
            drawn["-channels"] = plots.correlations(rows)
        return drawn


def requested(request: Request[Budget], setting: str) -> Recombine:
    if setting not in TITLES:
        raise SchemaError(f"unknown setting '{setting}'; known are {', '.join(TITLES)}")
    return Recombine(request, setting)


def grid(rows: Sequence[Row], *, papers: bool = False) -> list[list[str]]:
    """Return a line for each method: its values, or one value by direction or case."""
    setting = rows[0].setting
    if setting in ACROSS:
        columns = tables.across(rows, ACROSS[setting], "accuracy")
        if setting != "transfer":  # a mean over steps would say nothing
            columns["mean"] = averaged("accuracy")
        return tables.grid(rows, {"method": "method"}, columns)
    columns, known = dict(COLUMNS), PAPER.get(setting)
    if papers and known:
        columns["paper"] = lambda own: known.get(own[0].method)
    return tables.grid(rows, {"method": lambda row: f"{row.method} {row.case}".strip()}, columns)
