"""Carries out a request and hands its outcome to a terminal, a program, the results page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.harness import goal, outcome, results
from tests.benchmarks.papers.recombine import goals, plots, run, tables
from tests.benchmarks.papers.recombine.request import TITLES, Request
from tests.benchmarks.papers.recombine.rows import Row


@dataclass(frozen=True)
class Outcome:
    """All rows of a request."""

    rows: list[Row]
    request: Request
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `bench recombine` (DESIGN section 8)."""
        request = self.request
        return outcome.as_json(
            self.rows, goals.goals(self.rows), request.budget, command(request), self.seconds
        )

    def show(self, console: Console) -> None:
        """Print the table and the goals for people."""
        console.print(tables.heading(self.rows))
        console.print(tables.terminal(self.rows))
        outcome.show_goals(goals.goals(self.rows), console)


def made(request: Request, folder: Path | None, console: Console) -> Outcome:
    """Run a request; write its section and pictures where a folder is given."""
    began = time.perf_counter()
    done = Outcome(run.measure(request, console), request, time.perf_counter() - began)
    if folder is not None:
        pictures = _pictures(done, folder / results.FIGURES)
        console.print(f"written: {results.write(folder, section(done, pictures))}")
    return done


def section(done: Outcome, pictures: Sequence[str]) -> results.Section:
    """Return the results page's section of one setting."""
    rows, request = done.rows, done.request
    budget = request.budget
    training = budget.of(request.setting)
    shown = "".join(f"\n![{picture}]({results.FIGURES}/{picture})\n" for picture in pictures)
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    body = (
        f"Accuracy in % on test images, mean over directions and seeds {seeds}; ± half a 95% "
        f"interval over seeds; chance {rows[0].chance:.1f}. ResNet-{6 * budget.blocks + 2} of "
        f"width {budget.width}, {training.steps} minibatches of {training.batch} a net, budget "
        f"'{budget.name}', {request.device}. {round(done.seconds)} s, less what the cache held."
        f"\n\n{tables.NOTES[request.setting]}\n\n{tables.markdown(rows)}\n"
        f"{goal.markdown(goals.goals(rows))}{shown}"
    )
    return results.Section(_stem(request), TITLES[request.setting], command(request), body)


def command(request: Request) -> str:
    """Return the command that makes a request, whatever was left out when it was given."""
    words = [
        "rootstock bench recombine",
        f"--setting {request.setting}",
        f"--seeds {request.seeds}",
    ]
    return " ".join([*words, *outcome.size_words(request.budget.name, request.device)])


def _stem(request: Request) -> str:
    """Name a section and its pictures: a run of another size replaces none."""
    return outcome.named(f"recombine-{request.setting}", request.budget.name)


def _pictures(done: Outcome, folder: Path) -> list[str]:
    stem = _stem(done.request)
    plots.DRAWN[done.request.setting](done.rows, folder / f"{stem}.png")
    pictures = [f"{stem}.png"]
    if done.request.setting in ("analysis", "incremental", "bound"):
        plots.correlations(done.rows, folder / f"{stem}-channels.png")
        pictures.append(f"{stem}-channels.png")
    return pictures
