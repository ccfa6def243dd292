"""Runs all trainings side by side, sources first, and gathers their rows."""

from __future__ import annotations

from rich.console import Console

from tests.benchmarks.harness.pool import processes, run_all
from tests.benchmarks.papers.l2t import cells, tasks
from tests.benchmarks.papers.l2t.cells import Cell, SourceCell, SourceConfig
from tests.benchmarks.papers.l2t.methods import SEVERAL
from tests.benchmarks.papers.l2t.request import TARGET_ARCHITECTURE, Request
from tests.benchmarks.papers.l2t.rows import Row


def measure(request: Request, console: Console) -> list[Row]:
    """Return all rows, in the order of numbers of samples, methods and seeds."""
    for name in (*(task for task, _ in request.sources), request.target):
        tasks.task(name, request.root, request.cache)  # once, before the processes start
    wanted = [
        SourceCell(config, request.root, request.cache)
        for seed in range(request.budget.seeds)
        for config in sources(request, seed)
    ]
    with processes(request.workers) as pool:
        run_all(pool, "sources", cells.prepare, wanted, console)
        return run_all(pool, "targets", cells.run, targets(request), console)


def sources(request: Request, seed: int) -> tuple[SourceConfig, ...]:
    """Return what decides the sources of a seed."""
    return tuple(
        SourceConfig(
            task=task,
            architecture=request.budget.architecture(architecture),
            training=request.budget.source,
            seed=seed,
            device=request.device,
        )
        for task, architecture in request.sources
    )


def targets(request: Request) -> list[Cell]:
    """Return every method with the first source, and some with all of them."""
    budget = request.budget
    cells_ = []
    for samples in budget.samples:
        for method in request.methods:
            counts = [0 if method == "scratch" else 1]
            if method in SEVERAL and len(request.sources) > 1:
                counts.append(len(request.sources))
            cells_ += [
                Cell(
                    method=method,
                    sources=sources(request, seed)[:count],
                    target=request.target,
                    architecture=budget.architecture(TARGET_ARCHITECTURE),
                    samples=samples,
                    seed=seed,
                    budget=budget,
                    device=request.device,
                    root=request.root,
                    cache=request.cache,
                )
                for count in counts
                for seed in range(budget.seeds)
            ]
    return cells_
