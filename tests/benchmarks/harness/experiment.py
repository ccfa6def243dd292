"""An experiment of a paper: what was asked for, what it measures, how that is shown."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

from matplotlib.figure import Figure
from rich.console import Console

from tests.benchmarks.harness import goal, results, tables
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.harness.pool import Workers, workers
from tests.benchmarks.harness.request import DEFAULT, BudgetT, Request
from tests.benchmarks.harness.rows import RowT, chosen, distinct
from tests.benchmarks.harness.tables import Grid


@dataclass(frozen=True)
class Experiment(ABC, Generic[BudgetT, RowT]):
    """One experiment as it was asked for, checked and whole."""

    request: Request[BudgetT]
    left: ClassVar[int] = 1
    """Columns of the table that are text."""
    wraps: ClassVar[str] = ""
    """The one that a terminal may fold."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The section's and its pictures', but for the size."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The section's."""

    @abstractmethod
    def words(self) -> list[str]:
        """Return the command's own words, whatever was left out when it was given.

        Seeds, size and device follow.
        """

    @abstractmethod
    def measure(self, run: Workers) -> list[RowT]:
        """Return all rows."""

    @abstractmethod
    def grid(self, rows: Sequence[RowT]) -> Grid:
        """Return the table."""

    @abstractmethod
    def paragraphs(self, rows: Sequence[RowT], seconds: float) -> Iterator[str]:
        """Yield the section up to the goals."""

    def goals(self, rows: Sequence[RowT]) -> list[Goal]:
        """Return the goals that the rows say something about."""
        return []

    def tested(self, rows: Sequence[RowT]) -> list[Goal]:
        """Return the goals, and whether the seeds support those that are met."""
        seeds = distinct(rows, "seed")
        return goal.by_seeds(
            self.goals(rows), [self.goals(chosen(rows, seed=seed)) for seed in seeds]
        )

    def pictures(self, rows: Sequence[RowT], run: Workers) -> Mapping[str, Figure]:
        """Draw the section's pictures, by what their names end in."""
        return {}

    def heading(self, rows: Sequence[RowT]) -> str:
        """Say what the table at a terminal shows."""
        return self.title

    def notes(self, rows: Sequence[RowT]) -> list[str]:
        """Return lines below the table at a terminal."""
        return []

    def caption(self, rows: Sequence[RowT]) -> str:
        """Say what the pictures show, where they do not say it themselves."""
        return ""

    @property
    def stem(self) -> str:
        """Name a section and its pictures: a run of another size replaces none."""
        size = self.request.budget.name
        return self.name if size == DEFAULT else f"{self.name}-{size}"

    @property
    def command(self) -> str:
        """Return the command that makes the request."""
        budget, device = self.request.budget, self.request.device
        words = ["rootstock bench", *self.words(), f"--seeds {budget.seeds}"]
        words += [] if budget.name == DEFAULT else [f"--{budget.name}"]
        return " ".join(words if device == "cpu" else [*words, f"--device {device}"])


@dataclass(frozen=True)
class Outcome(Generic[RowT]):
    """All rows of an experiment."""

    experiment: Experiment[Any, RowT]
    rows: list[RowT]
    seconds: float
    machine: str = field(default_factory=results.machine)
    """Where, with what and of which commit it began."""

    def as_json(self) -> dict[str, Any]:
        """Return the measurement's JSON (DESIGN section 8)."""
        goals = self.experiment.tested(self.rows)
        return {
            "rows": [asdict(row) for row in self.rows],
            "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in goals],
            "budget": asdict(self.experiment.request.budget),
            "command": self.experiment.command,
            "machine": self.machine,
            "seconds": round(self.seconds, 1),
        }

    def text(self) -> str:
        """Return the section up to the goals."""
        return _paragraphs(self.experiment.paragraphs(self.rows, self.seconds))

    def section(self, pictures: Sequence[str]) -> results.Section:
        """Return the results page's section."""
        experiment = self.experiment
        rows = f"{results.ROWS}/{experiment.stem}.jsonl"
        parts = [
            self.text(),
            f"Every seed's rows: [{rows}]({rows}).",
            goal.markdown(experiment.tested(self.rows)),
            experiment.caption(self.rows),
            *(f"![{picture}]({results.FIGURES}/{picture})" for picture in pictures),
        ]
        return results.Section(
            experiment.stem,
            experiment.title,
            experiment.command,
            _paragraphs(parts),
            self.machine,
        )

    def show(self, console: Console) -> None:
        """Print the table and the goals for people."""
        experiment, rows = self.experiment, self.rows
        console.print(experiment.heading(rows))
        console.print(
            tables.terminal(experiment.grid(rows), left=experiment.left, wraps=experiment.wraps)
        )
        for line in experiment.notes(rows):
            console.print(line, soft_wrap=True)
        for one in experiment.tested(rows):
            console.print(f"{one.verdict:<7} {one.what}: {one.ours} ({one.bar})", soft_wrap=True)

    def write(self, folder: Path, run: Workers) -> Path:
        """Write the section and its pictures; return the page."""
        names = []
        for end, figure in self.experiment.pictures(self.rows, run).items():
            names.append(f"{self.experiment.stem}{end}.png")
            path = folder / results.FIGURES / names[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        results.write_rows(folder, self.experiment.stem, map(asdict, self.rows))
        return results.write(folder, self.section(names))


def made(experiment: Experiment[Any, RowT], folder: Path | None, console: Console) -> Outcome[RowT]:
    """Run an experiment; write its section and pictures where a folder is given."""
    began, machine = time.perf_counter(), results.machine()
    with workers(experiment.request.workers, console) as run:
        rows = experiment.measure(run)
        outcome = Outcome(experiment, rows, time.perf_counter() - began, machine)
        if folder is not None:
            console.print(f"written: {outcome.write(folder, run)}")
    return outcome


def _paragraphs(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip())
