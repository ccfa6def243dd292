"""How good the teachers are for their size: beside the same net, trained three times as long.

The reference has the lab's images, the common start and the lab's recipe; nothing about it had to
fit a transplant. Both are judged on test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from rootstock.common.images import normalise
from rootstock.common.nets.training import in_batches
from rootstock.site_agent.scoring import error_percent
from tests.benchmarks.harness import experiment, tables
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Budget, Request
from tests.benchmarks.harness.rows import RowT, distinct, mean
from tests.benchmarks.harness.tables import averaged
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.transplant import teachers
from tests.benchmarks.papers.transplant.cells import Cell, Setup

LONGER = 3
"""Times a lab's epochs."""
BAR = 2.0
"""Points above the reference that a teacher may be."""


@dataclass(frozen=True)
class TeacherRow:
    """One lab's two nets; errors in percent on test images."""

    data: str
    category: str
    seed: int
    teacher_error: float
    reference_error: float

    @property
    def above(self) -> float:
        return self.teacher_error - self.reference_error


COLUMNS = {
    "teacher": averaged("teacher_error", "{0.mean:.1f}"),
    "reference": averaged("reference_error", "{0.mean:.1f}"),
    "above": averaged("above", "{0.mean:+.1f}"),
}


@dataclass(frozen=True)
class OfLabs(experiment.Experiment[Budget, RowT]):
    """An experiment on nets of some categories' labs."""

    data: str
    categories: tuple[str, ...]
    kind: ClassVar[str]
    says: ClassVar[str]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.data}"

    @property
    def title(self) -> str:
        return f"{self.kind.capitalize()}: {self.says} ({self.data})"

    def words(self) -> list[str]:
        return [self.kind, f"--data {self.data}", f"--categories {','.join(self.categories)}"]


class Teachers(OfLabs[TeacherRow]):
    kind = "teachers"
    says = "how good they are for their size"

    def measure(self, run: Workers) -> list[TeacherRow]:
        datasets.load(self.data, self.request.folders)  # once, before the processes start
        setup = Setup(self.request.folders, 2, self.data, (), ())
        wanted = [
            Cell(setup, name, seed) for seed in self.request.seeds for name in self.categories
        ]
        return run.run("teachers", judged, wanted)

    def grid(self, rows: Sequence[TeacherRow]) -> list[list[str]]:
        lines = tables.grid(rows, {"category": "category"}, COLUMNS)
        return [*lines, ["**mean**", *tables.cells(rows, COLUMNS)]]

    def paragraphs(self, rows: Sequence[TeacherRow], seconds: float) -> Iterator[str]:
        yield (
            f"Error in % on test images, mean over {len(distinct(rows, 'seed'))} seeds. The "
            f"reference: the same net and images, {LONGER} times the epochs. {round(seconds)} s."
        )
        yield tables.markdown(self.grid(rows))
        above = mean(rows, "above")
        verdict = "met" if above <= BAR else "missed"
        yield f"Teachers within {BAR:g} points of the reference: {above:+.1f}, {verdict}."


def requested(request: Request[Budget], data: str, categories: Sequence[str]) -> Teachers:
    datasets.require(data)
    known = datasets.SIMILAR[data]
    return Teachers(request, data, datasets.categories(categories, known, f"{data}'s categories"))


def judged(cell: Cell) -> TeacherRow:
    """Train both nets of a lab, and judge them."""
    lab = cell.lab()
    errors = []
    for longer in (1, LONGER):
        net = teachers.trained(lab, longer=longer)
        whole = nn.Sequential(net.category_module, net.task_modules[teachers.TASK.name])
        y_N = in_batches(whole, normalise(lab.split.test.images_NCSS)).flatten()
        errors.append(error_percent(y_N, lab.split.test.classes_N.float()))
    return TeacherRow(cell.setup.data, cell.category, cell.seed, *errors)
