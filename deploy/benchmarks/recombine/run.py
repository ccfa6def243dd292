"""Runs a setting's cells side by side, one training a process, and gathers their rows."""

from __future__ import annotations

from rich.console import Console

from deploy.benchmarks.pool import processes, run_all
from deploy.benchmarks.recombine import pair_settings, pairs
from deploy.benchmarks.recombine.request import Request
from deploy.benchmarks.recombine.rows import Row, bounded
from deploy.benchmarks.transplant import datasets


def measure(request: Request, console: Console) -> list[Row]:
    """Return all rows, seed by seed, in the order of methods."""
    datasets.load("cifar10", request.root, request.cache)  # once, before the processes start
    cells = pair_settings.cells(request)
    with processes(min(request.workers, len(cells))) as pool:
        found = run_all(pool, "nets", pairs.run, cells, console)
    return bounded([row for rows in found for row in rows])
