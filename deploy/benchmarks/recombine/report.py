"""Carries out a request and hands its outcome to a terminal, a program, the results page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.benchmarks import goal, results
from deploy.benchmarks.recombine import goals, plots, run, tables
from deploy.benchmarks.recombine.request import TITLES, Request
from deploy.benchmarks.recombine.rows import Row


@dataclass(frozen=True)
class Outcome:
    """All rows of a request."""

    rows: list[Row]
    request: Request
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `bench recombine` (DESIGN section 8)."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "goals": [{**asdict(g), "verdict": g.verdict} for g in goals.goals(self.rows)],
            "budget": asdict(self.request.budget),
            "command": command(self.request),
            "machine": results.machine(),
            "seconds": round(self.seconds, 1),
        }

    def show(self, console: Console) -> None:
        """Print the table and the goals for people."""
        console.print(tables.heading(self.rows))
        console.print(tables.terminal(self.rows))
        for g in goals.goals(self.rows):
            console.print(f"{g.verdict:<7} {g.what}: {g.ours} ({g.bar})", soft_wrap=True)


def made(request: Request, folder: Path | None, console: Console) -> Outcome:
    """Run a request; write its section and pictures where a folder is given."""
    began = time.perf_counter()
    outcome = Outcome(run.measure(request, console), request, time.perf_counter() - began)
    if folder is not None:
        pictures = _pictures(outcome, folder / results.FIGURES)
        console.print(f"written: {results.write(folder, section(outcome, pictures))}")
    return outcome


def section(outcome: Outcome, pictures: Sequence[str]) -> results.Section:
    """Return the results page's section of one setting."""
    rows, request = outcome.rows, outcome.request
    budget = request.budget
    training = budget.of(request.setting)
    shown = "".join(f"\n![{picture}]({results.FIGURES}/{picture})\n" for picture in pictures)
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    body = (
        f"Accuracy in % on test images, mean over directions and seeds {seeds}; ± half a 95% "
        f"interval over seeds; chance {rows[0].chance:.1f}. ResNet-{6 * budget.blocks + 2} of "
        f"width {budget.width}, {training.steps} minibatches of {training.batch} a net, budget "
        f"'{budget.name}', {request.device}. {round(outcome.seconds)} s, less what the cache held."
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
    if request.budget.name != "default":
        words.append(f"--{request.budget.name}")
    if request.device != "cpu":
        words.append(f"--device {request.device}")
    return " ".join(words)


def _stem(request: Request) -> str:
    """Name a section and its pictures: a run of another size replaces none."""
    stem = f"recombine-{request.setting}"
    return stem if request.budget.name == "default" else f"{stem}-{request.budget.name}"


def _pictures(outcome: Outcome, folder: Path) -> list[str]:
    stem = _stem(outcome.request)
    plots.DRAWN[outcome.request.setting](outcome.rows, folder / f"{stem}.png")
    pictures = [f"{stem}.png"]
    if outcome.request.setting in ("analysis", "incremental", "bound"):
        plots.correlations(outcome.rows, folder / f"{stem}-channels.png")
        pictures.append(f"{stem}-channels.png")
    return pictures
