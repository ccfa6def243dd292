"""Trains the backbone, then runs a request's cells side by side, one training a process."""

from __future__ import annotations

from rich.console import Console

from tests.benchmarks.harness.pool import processes, run_all
from tests.benchmarks.papers.nettailor import cells
from tests.benchmarks.papers.nettailor.cells import Cell
from tests.benchmarks.papers.nettailor.request import Request
from tests.benchmarks.papers.nettailor.rows import Row


def measure(request: Request, console: Console) -> list[Row]:
    """Return all rows, task by task, seed by seed."""
    todo = [
        Cell(task, seed, request.budget, request.root, request.cache)
        for task in request.tasks
        for seed in range(request.seeds)
    ]
    with processes(request.workers) as pool:
        # Every cell reads the backbone from the cache; without this each would train its own.
        run_all(pool, "backbone", cells.prepare, todo[:1], console)
        return run_all(pool, "tailoring", cells.run, todo, console)
