"""Trains the backbone, then runs a request's cells side by side, one training a process."""

from __future__ import annotations

from rich.console import Console

from deploy.benchmarks.nettailor import cells
from deploy.benchmarks.nettailor.cells import Cell
from deploy.benchmarks.nettailor.request import Request
from deploy.benchmarks.nettailor.rows import Row
from deploy.benchmarks.pool import processes, run_all


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
