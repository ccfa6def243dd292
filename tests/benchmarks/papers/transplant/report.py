"""Carries out a request and hands its outcome to a terminal, a program, the results page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.harness import results
from tests.benchmarks.papers.transplant import goals, plots, run, tables
from tests.benchmarks.papers.transplant.cells import Row
from tests.benchmarks.papers.transplant.run import Request


@dataclass(frozen=True)
class Outcome:
    """All rows of a request."""

    rows: list[Row]
    command: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of `bench transplant` (DESIGN section 8)."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "goals": [asdict(goal) for goal in goals.goals(self.rows)],
            "command": self.command,
            "machine": results.machine(),
            "seconds": round(self.seconds, 1),
        }

    def show(self, console: Console) -> None:
        """Print the table and the goals for people."""
        console.print(tables.terminal(self.rows))
        for goal in goals.goals(self.rows):
            console.print(f"{goal.verdict:<7} {goal.what}: {goal.ours} ({goal.bar})")


def made(request: Request, folder: Path | None, console: Console) -> Outcome:
    """Run a request; write its section and pictures where a folder is given."""
    began = time.perf_counter()
    rows = run.measure(request, console)
    outcome = Outcome(rows, command(request), time.perf_counter() - began)
    if folder is not None:
        pictures = _pictures(request, rows, folder / results.FIGURES, console)
        part = section(
            rows,
            name=_stem(request),
            command=outcome.command,
            seconds=outcome.seconds,
            pictures=pictures,
        )
        console.print(f"written: {results.write(folder, part)}")
    return outcome


def section(
    rows: Sequence[Row], *, name: str, command: str, seconds: float, pictures: Sequence[str]
) -> results.Section:
    """Return the section of one experiment on one data set."""
    experiment, data = rows[0].experiment, rows[0].data
    seeds = sorted({row.seed for row in rows})
    shown = "".join(f"\n![{picture}]({results.FIGURES}/{picture})\n" for picture in pictures)
    body = (
        f"{tables.unit(experiment).capitalize()}, mean over "
        f"{', '.join(dict.fromkeys(row.category for row in rows))} and seeds "
        f"{', '.join(map(str, seeds))}; ± half a 95% interval over seeds. "
        f"{round(seconds)} s with teachers in the cache or trained.\n\n"
        f"{tables.markdown(rows)}\n{goals.markdown(rows)}{shown}"
    )
    return results.Section(name, f"{tables.TITLES[experiment]} ({data})", command, body)


def command(request: Request) -> str:
    """Return the command that makes a request, whatever was left out when it was given."""
    words = [
        "rootstock bench transplant",
        f"--experiment {request.experiment}",
        f"--data {request.data}",
        f"--samples {','.join(map(str, request.samples))}",
        f"--methods {','.join(request.methods)}",
        f"--categories {','.join(request.categories)}",
        f"--seeds {request.seeds}",
    ]
    if request.split != "pool2":
        words.append(f"--split {request.split}")
    if request.quick:
        words.append("--quick")
    return " ".join(words)


def _stem(request: Request) -> str:
    """Name a section and its pictures: a quick run or another split replaces no other's."""
    stem = f"transplant-{request.experiment}-{request.data}"
    if request.split != "pool2":
        stem += f"-{request.split}"
    return f"{stem}-quick" if request.quick else stem


def _pictures(request: Request, rows: Sequence[Row], folder: Path, console: Console) -> list[str]:
    stem = _stem(request)
    plots.error_over_samples(rows, folder / f"{stem}.png")
    pictures = [f"{stem}.png"]
    if request.experiment == 2:
        spaces = run.spaces(request, console)
        plots.feature_spaces(spaces, folder / f"{stem}-features.png")
        pictures.append(f"{stem}-features.png")
    return pictures
