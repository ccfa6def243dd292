"""``rootstock bench nettailor``: one backbone tailored to tasks of different difficulty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from rootstock.coordinator.pictures.recipes import draw_tailored
from tests.benchmarks.harness import experiment, plots, tables
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.harness.rows import chosen, distinct, over
from tests.benchmarks.papers.nettailor import cells, goals
from tests.benchmarks.papers.nettailor.budget import Budget
from tests.benchmarks.papers.nettailor.cells import Cell, Row
from tests.benchmarks.papers.nettailor.tasks import require

DEFAULT_TASKS = ("mnist", "fashion-mnist", "cifar10")
QUICK_TASKS = ("digits",)
"""A minute is enough for one task alone."""
COLUMNS = {
    "teacher": tables.averaged("teacher_error"),
    "tailored": tables.averaged("error"),
    "params −": tables.averaged("params_removed", "{:.0f}"),
    "FLOPs −": tables.averaged("flops_removed", "{:.0f}"),
    "new": tables.averaged("new_params_share"),
    "latency": tables.averaged("latency_ratio", "{:.2f}"),
}
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


@dataclass(frozen=True)
class NetTailor(experiment.Experiment[Budget, Row]):
    tasks: tuple[str, ...]
    name = "nettailor"
    title = "One backbone tailored to tasks of different difficulty"

    def words(self) -> list[str]:
        return ["nettailor", f"--task {','.join(self.tasks)}"]

    def measure(self, run: Workers) -> list[Row]:
        """Return all rows, task by task, seed by seed."""
        # Every cell reads the backbone from the cache; without this each would train its own.
        run.fill("backbone", cells.backbone, [self.request])
        todo = [Cell(self.request, task, n) for task in self.tasks for n in self.request.seeds]
        return run.run("tailoring", cells.run, todo)

    def goals(self, rows: Sequence[Row]) -> list[Goal]:
        return goals.goals(rows)

    def heading(self, rows: Sequence[Row]) -> str:
        return (
            f"{self.title}\n"
            "%, mean and half a 95% interval over seeds; latency: ratio to the original"
        )

    def grid(self, rows: Sequence[Row]) -> list[list[str]]:
        return tables.grid(rows, {"task": "task"}, COLUMNS)

    def notes(self, rows: Sequence[Row]) -> list[str]:
        """Say of each search that found nothing within the tolerance what became of it."""
        return [
            f"{row.task}, seed {row.seed}: no net is within the tolerance of the original "
            f"({100 - row.finetune_held_accuracy:.1f}% on images held apart); the full augmented "
            f"net was kept ({100 - row.held_accuracy:.1f}%)"
            for row in rows
            if not row.met
        ]

    def paragraphs(self, rows: Sequence[Row], seconds: float) -> Iterator[str]:
        budget = self.request.budget
        yield (
            f"%, mean over {over(rows)}. ResNet-"
            f"{6 * budget.blocks + 2} of width {budget.width}, minibatches: backbone "
            f"{budget.backbone.steps} of {budget.backbone.batch}; of {budget.batch}: teacher "
            f"{budget.teacher.steps}, student {budget.student.steps}, each tuning of a "
            f"pruned net {budget.tuning.steps}; budget '{budget.name}'. "
            f"{round(seconds)} s, less what the cache held."
        )
        yield NOTES
        yield tables.markdown(self.grid(rows))
        yield "".join(f"{line}.\n" for line in self.notes(rows))
        yield PAPER

    def caption(self, rows: Sequence[Row]) -> str:
        return (
            f"The net of seed {min(row.seed for row in rows)} for "
            f"{', '.join(distinct(rows, 'task'))}: boxes are universal blocks, dashed where left "
            "out; arcs are proxies, as wide as α."
        )

    def pictures(self, rows: Sequence[Row], run: Workers) -> dict[str, Figure]:
        return {"": nets(rows)}


def requested(request: Request[Budget], tasks: tuple[str, ...]) -> NetTailor:
    """Check what was asked for and fill in what was left out."""
    for name in tasks:
        require(name)
    default = QUICK_TASKS if request.budget.name == "quick" else DEFAULT_TASKS
    return NetTailor(request, tasks or default)


def nets(rows: Sequence[Row]) -> Figure:
    """Draw the tailored net of every task's lowest seed, as the paper's figure 4 draws them."""
    tasks = distinct(rows, "task")
    figure = plots.figure(8, 1.9 * len(tasks))
    for place, task in enumerate(tasks, start=1):
        row = min(chosen(rows, task=task), key=lambda row: row.seed)
        title = (
            f"{row.task}: {row.blocks_removed} of {len(row.blocks)} blocks, "
            f"{row.params_removed:.0f}% of parameters, {row.flops_removed:.0f}% of FLOPs removed"
            f"{'' if row.met else '; no net within the tolerance'}"
        )
        draw_tailored(figure.add_subplot(len(tasks), 1, place), row.blocks, row.paths, title)
    return figure
