"""How good the teachers are for their size: beside the same net, trained three times as long.

The reference has the lab's images, the common start and the lab's recipe; nothing about it had to
fit a transplant. Both are judged on test images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.images.decode import normalise
from rootstock.common.nets.training import in_batches
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.scoring.metrics import error_percent
from tests.benchmarks.harness import results
from tests.benchmarks.harness.pool import processes
from tests.benchmarks.papers.transplant import datasets, teachers
from tests.benchmarks.papers.transplant.datasets import Labelled

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


def measure(
    data: str, categories: Sequence[str], seeds: int, root: Path, cache: Path, workers: int
) -> list[TeacherRow]:
    """Train what is not in the cache, and judge.

    Parameters
    ----------
    data, categories
        A data set of the experiments, and categories of it.
    seeds
        Runs 0 to `seeds` − 1.
    root, cache
        Of data sets; of trained nets.
    workers
        Processes side by side.

    Raises
    ------
    SchemaError
        If data or a category is not known.
    """
    if data not in datasets.NAMES:
        raise SchemaError(f"unknown data '{data}'; known are {', '.join(datasets.NAMES)}")
    known = datasets.SIMILAR[data]
    if unknown := [category for category in categories if category not in known]:
        raise SchemaError(f"'{unknown[0]}' is none of {data}'s categories: {', '.join(known)}")
    datasets.load(data, root, cache)  # once, before the processes start
    with processes(workers) as pool:
        futures = [
            pool.submit(_row, data, category, seed, root, cache)
            for seed in range(seeds)
            for category in categories
        ]
        return [future.result() for future in futures]


def made(
    data: str,
    categories: Sequence[str],
    seeds: int,
    *,
    root: Path,
    cache: Path,
    workers: int,
    folder: Path | None,
) -> dict[str, Any]:
    """Return the rows as JSON; write the page's section where a folder is given."""
    began = time.perf_counter()
    chosen = tuple(categories) or datasets.SIMILAR.get(data, ())
    rows = measure(data, chosen, seeds, root, cache, workers)
    seconds = time.perf_counter() - began
    command = (
        f"rootstock bench teachers --data {data} --categories {','.join(chosen)} --seeds {seeds}"
    )
    if folder is not None:
        body = _body(rows, seconds)
        title = f"Teachers: how good they are for their size ({data})"
        results.write(folder, results.Section(f"teachers-{data}", title, command, body))
    return {"rows": [asdict(row) for row in rows], "command": command, "seconds": round(seconds, 1)}


def _body(rows: Sequence[TeacherRow], seconds: float) -> str:
    seeds = len({row.seed for row in rows})
    lines = [
        f"Error in % on test images, mean over {seeds} seeds. The reference: the same net and "
        f"images, {LONGER} times the epochs. {round(seconds)} s.",
        "",
        "| category | teacher | reference | above |",
        "|---|---|---|---|",
    ]
    for category in dict.fromkeys(row.category for row in rows):
        lines.append(_line(category, [row for row in rows if row.category == category]))
    lines.append(_line("**mean**", rows))
    above = mean(row.teacher_error - row.reference_error for row in rows)
    verdict = "met" if above <= BAR else "missed"
    lines += ["", f"Teachers within {BAR:g} points of the reference: {above:+.1f}, {verdict}."]
    return "\n".join(lines)


def _line(name: str, rows: Sequence[TeacherRow]) -> str:
    ours = mean(row.teacher_error for row in rows)
    reference = mean(row.reference_error for row in rows)
    return f"| {name} | {ours:.1f} | {reference:.1f} | {ours - reference:+.1f} |"


def _row(data: str, category: str, seed: int, root: Path, cache: Path) -> TeacherRow:
    dataset = datasets.load(data, root, cache)
    split = datasets.lab(dataset, category, seed=seed)
    errors = [
        _error(
            teachers.trained(
                dataset, category, split, seed=seed, root=root, cache=cache, longer=longer
            ),
            split.test,
        )
        for longer in (1, LONGER)
    ]
    return TeacherRow(data, category, seed, *errors)


def _error(net: Teacher, test: Labelled) -> float:
    whole = nn.Sequential(net.category_module, net.task_modules[teachers.TASK.name])
    y_N = in_batches(whole, normalise(test.images_NCSS)).flatten()
    return error_percent(y_N, test.classes_N.float())
