"""Runs an experiment's cells side by side, teachers first, and gathers their rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rootstock.common.errors import SchemaError
from tests.benchmarks.harness.pool import processes, run_all
from tests.benchmarks.papers.transplant import (
    cells,
    datasets,
    segmentation,
    segmentation_cells,
    teachers,
)
from tests.benchmarks.papers.transplant.cells import Cell, Row

SAMPLES = (0, 10, 20, 50, 100)
METHODS: dict[int, tuple[str, ...]] = {
    1: ("identity", "direct-learn", "back-distill", "closed-form", "auto"),
    2: (
        "identity",
        "direct-learn",
        "distill",
        "jacobian",
        "back-distill",
        "closed-form",
        "dream",
        "auto",
        cells.CEILING,
    ),
    3: ("identity", "direct-learn", "distill", "back-distill", "closed-form", "auto"),
    4: ("identity", "direct-learn", "back-distill", "closed-form", "auto", cells.CEILING),
}
"""What an experiment compares unless told otherwise."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    experiment: int
    data: str
    samples: tuple[int, ...]
    methods: tuple[str, ...]
    categories: tuple[str, ...]
    seeds: int
    quick: bool
    root: Path
    cache: Path
    split: str
    workers: int


def requested(
    experiment: int,
    data: str,
    *,
    samples: Sequence[int] = (),
    methods: Sequence[str] = (),
    categories: Sequence[str] = (),
    seeds: int = 3,
    quick: bool = False,
    root: Path,
    cache: Path,
    split: str = "pool2",
    workers: int | None = None,
) -> Request:
    """Check what was asked for and fill in what was left out.

    Raises
    ------
    SchemaError
        If experiment, data, a method or a category is not known; names those that are.
    """
    if experiment not in METHODS:
        raise SchemaError(f"unknown experiment {experiment}; known are 1, 2, 3, 4")
    if data not in datasets.NAMES:
        raise SchemaError(f"unknown data '{data}'; known are {', '.join(datasets.NAMES)}")
    if experiment == 3 and data != "voc-animals":
        raise SchemaError(
            "experiment 3 segments, and only voc-animals has masks; use --data voc-animals"
        )
    if experiment == 4 and data != "cifar10":
        raise SchemaError(f"{data} has no dissimilar categories for experiment 4; use cifar10")
    known = METHODS[experiment]
    for method in methods:
        if method not in known:
            raise SchemaError(
                f"experiment {experiment} has no method '{method}'; it has {', '.join(known)}"
            )
    if any(count < 0 or count > 1000 for count in samples):
        raise SchemaError(f"--samples {list(samples)}: numbers from 0 to 1000 are possible")
    similar = datasets.SIMILAR[data]
    targets = similar if experiment == 1 else similar[1:]
    for category in categories:
        if category not in targets:
            raise SchemaError(
                f"'{category}' is none of the categories that experiment {experiment} transplants "
                f"on {data}: {', '.join(targets)}"
            )
    if quick:
        samples = samples or (0, 20)
        targets = targets[:2]
        known = tuple(m for m in known if m not in ("jacobian", "distill", "dream", cells.CEILING))
    return Request(
        experiment=experiment,
        data=data,
        samples=tuple(samples) or SAMPLES,
        methods=tuple(methods) or known,
        categories=tuple(categories) or targets,
        seeds=1 if quick else seeds,
        quick=quick,
        root=root,
        cache=cache,
        split=split,
        workers=workers or len(os.sched_getaffinity(0)),
    )


def measure(request: Request, console: Console) -> list[Row]:
    """Return all rows, in the order of categories, seeds, methods and samples."""
    with processes(request.workers) as pool:
        if request.experiment == 3:
            segmentation.load(request.root, request.cache)  # once, before the processes start
            starts = [cell for cell in _nets_3(request) if cell.category == request.categories[0]]
            others = [cell for cell in _nets_3(request) if cell not in starts]
            for part in (starts, others):
                run_all(pool, "teachers", segmentation_cells.prepare, part, console)
            found = run_all(pool, "transplants", segmentation_cells.run, _cells(request), console)
            return [row for cell_rows in found for row in cell_rows]
        datasets.load(request.data, request.root, request.cache)
        run_all(pool, "common starts", _start, _starts(request), console)
        run_all(pool, "teachers", _teacher, _teachers(request), console)
        rows = run_all(pool, "transplants", cells.run, _cells(request), console)
    return [row for cell_rows in rows for row in cell_rows]


def spaces(request: Request, console: Console) -> dict[str, cells.Space]:
    """Return, by category, last hidden features with our adapter and with direct-learn's."""
    wanted = [
        replace(cell, samples=(cells.SPACE_SAMPLES,)) for cell in _cells(request) if cell.seed == 0
    ]
    with processes(request.workers) as pool:
        found = run_all(pool, "feature spaces", cells.space, wanted, console)
    return dict(zip((cell.category for cell in wanted), found, strict=True))


def _nets_3(request: Request) -> list[Cell]:
    """Return a cell for every net of Experiment 3: each needs its seed's start first."""
    student = datasets.SIMILAR[request.data][0]
    wanted = replace(request, categories=(*request.categories, student))
    return _cells(wanted)


def _cells(request: Request) -> list[Cell]:
    return [
        Cell(
            experiment=request.experiment,
            data=request.data,
            category=category,
            seed=seed,
            samples=request.samples,
            methods=request.methods,
            root=request.root,
            cache=request.cache,
            split=request.split,
            quick=request.quick,
        )
        for seed in range(request.seeds)
        for category in request.categories
    ]


@dataclass(frozen=True)
class _Wanted:
    """A net that must be in the cache."""

    data: str
    category: str
    seed: int
    root: Path
    cache: Path


def _starts(request: Request) -> list[_Wanted]:
    return [
        _Wanted(request.data, "", seed, request.root, request.cache)
        for seed in range(request.seeds)
    ]


def _teachers(request: Request) -> list[_Wanted]:
    needed = set(request.categories)
    if request.experiment == 2:
        needed.add(datasets.SIMILAR[request.data][0])
    return [
        _Wanted(request.data, category, seed, request.root, request.cache)
        for seed in range(request.seeds)
        for category in sorted(needed)
    ]


def _start(wanted: _Wanted) -> None:
    dataset = datasets.load(wanted.data, wanted.root, wanted.cache)
    teachers.common_start(dataset, seed=wanted.seed, root=wanted.root, cache=wanted.cache)


def _teacher(wanted: _Wanted) -> None:
    dataset = datasets.load(wanted.data, wanted.root, wanted.cache)
    split = datasets.lab(dataset, wanted.category, seed=wanted.seed)
    teachers.trained(
        dataset, wanted.category, split, seed=wanted.seed, root=wanted.root, cache=wanted.cache
    )
