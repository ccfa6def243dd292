"""Carries out a request and hands its outcome to a terminal, a program, the results page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.harness import goal, outcome, results
from tests.benchmarks.papers.l2t import goals, plots, run, tables
from tests.benchmarks.papers.l2t.methods import OURS
from tests.benchmarks.papers.l2t.request import Request
from tests.benchmarks.papers.l2t.rows import Row

_TITLE = "Learning what and where to transfer, with few images"


@dataclass(frozen=True)
class Outcome:
    """All rows of a request."""

    rows: list[Row]
    request: Request
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `bench l2t` (DESIGN section 8)."""
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
    """Return the results page's section."""
    rows, request = done.rows, done.request
    target = request.budget.target
    steps = f"{target.steps} minibatches" if target.steps else f"{target.epochs} epochs"
    sources = ", ".join(f"{task} ({architecture})" for task, architecture in request.sources)
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    shown = "".join(f"\n![{picture}]({results.FIGURES}/{picture})\n" for picture in pictures)
    stand_in = (
        "Even and odd classes of CIFAR-10 stand in for TinyImageNet and CIFAR: two tasks of "
        "photographs without a class in common. "
    )
    body = (
        f"Accuracy in % on {request.budget.test_images or 'all'} of {request.target}'s test images "
        f"by training images a class, mean over seeds {seeds}; ± half a 95% interval over seeds. "
        f"Sources: {sources}; target: a small VGG of width {request.budget.vgg_width}, alike at "
        f"the start for every method, {steps} of {target.batch}, SGD {target.rate:g}, "
        f"β {target.beta:g} (divided among sources), weight of forgetting {target.forgetting:g} "
        f"and of attention {target.attention:g}, meta-networks Adam {target.meta_rate:g} every "
        f"{target.meta_period} minibatches, budget '{request.budget.name}', {request.device}. "
        f"{round(done.seconds)} s, less what the cache held.\n\n"
        f"{stand_in if request.target.startswith('cifar10-') else ''}`fm` and `l2t-w` match stage "
        f"with stage, `{OURS}` every stage with every stage; `l2t-w` learns what, `{OURS}` what "
        "and where.\n\n"
        f"{tables.markdown(rows)}\n{goal.markdown(goals.goals(rows))}{shown}"
    )
    return results.Section(_stem(request), _TITLE, command(request), body)


def command(request: Request) -> str:
    """Return the command that makes a request, whatever was left out when it was given."""
    budget = request.budget
    words = [
        "rootstock bench l2t",
        f"--sources {','.join(':'.join(source) for source in request.sources)}",
        f"--target {request.target}",
        f"--samples-per-class {','.join(map(str, budget.samples))}",
        f"--methods {','.join(request.methods)}",
        f"--seeds {budget.seeds}",
    ]
    return " ".join([*words, *outcome.size_words(budget.name, request.device)])


def _stem(request: Request) -> str:
    """Name a section and its pictures: a run of another size or target replaces none."""
    return outcome.named(f"l2t-{request.target}", request.budget.name)


def _pictures(done: Outcome, folder: Path) -> list[str]:
    stem = _stem(done.request)
    plots.over_samples(done.rows, folder / f"{stem}.png")
    pictures = [f"{stem}.png"]
    if any(row.where for row in done.rows):
        plots.lambdas(done.rows, folder / f"{stem}-lambda.png")
        pictures.append(f"{stem}-lambda.png")
    return pictures
