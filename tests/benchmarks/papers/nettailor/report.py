"""Carries out a request and hands its outcome to a terminal, a program, the results page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.harness import goal, outcome, results
from tests.benchmarks.papers.nettailor import goals, plots, run, tables
from tests.benchmarks.papers.nettailor.request import Request
from tests.benchmarks.papers.nettailor.rows import Row, names


@dataclass(frozen=True)
class Outcome:
    """All rows of a request."""

    rows: list[Row]
    request: Request
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `bench nettailor` (DESIGN section 8)."""
        request = self.request
        return outcome.as_json(
            self.rows, goals.goals(self.rows), request.budget, command(request), self.seconds
        )

    def show(self, console: Console) -> None:
        """Print the table and the goals for people."""
        console.print(tables.HEADING)
        console.print(tables.terminal(self.rows))
        for line in tables.unmet(self.rows):
            console.print(line, soft_wrap=True)
        outcome.show_goals(goals.goals(self.rows), console)


def made(request: Request, folder: Path | None, console: Console) -> Outcome:
    """Run a request; write its section and picture where a folder is given."""
    began = time.perf_counter()
    done = Outcome(run.measure(request, console), request, time.perf_counter() - began)
    if folder is not None:
        picture = f"{_stem(request)}.png"
        plots.nets(done.rows, folder / results.FIGURES / picture)
        console.print(f"written: {results.write(folder, section(done, picture))}")
    return done


def section(done: Outcome, picture: str) -> results.Section:
    """Return the results page's section."""
    rows, budget = done.rows, done.request.budget
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    said = "".join(f"{line}.\n" for line in tables.unmet(rows))
    body = (
        f"%, mean over seeds {seeds}; ± half a 95% interval over seeds. ResNet-"
        f"{6 * budget.blocks + 2} of width {budget.width}, minibatches: backbone "
        f"{budget.backbone.steps} of {budget.backbone.batch}; of {budget.batch}: teacher "
        f"{budget.teacher.steps}, student {budget.student.steps}, each tuning of a "
        f"pruned net {budget.tuning.steps}; budget '{budget.name}'. "
        f"{round(done.seconds)} s, less what the cache held.\n\n{tables.NOTES}\n\n"
        f"{tables.markdown(rows)}\n{said}\n{tables.PAPER}\n\n"
        f"{goal.markdown(goals.goals(rows))}\n"
        f"The net of seed {min(row.seed for row in rows)} for {', '.join(names(rows))}: boxes are "
        "universal blocks, dashed where left out; arcs are proxies, as wide as α.\n\n"
        f"![{picture}]({results.FIGURES}/{picture})\n"
    )
    return results.Section(_stem(done.request), tables.TITLE, command(done.request), body)


def command(request: Request) -> str:
    """Return the command that makes a request, whatever was left out when it was given."""
    words = [f"rootstock bench nettailor --task {','.join(request.tasks)} --seeds {request.seeds}"]
    return " ".join([*words, *outcome.size_words(request.budget.name)])


def _stem(request: Request) -> str:
    """Name a section and its picture: a run of another size replaces none."""
    return outcome.named("nettailor", request.budget.name)
