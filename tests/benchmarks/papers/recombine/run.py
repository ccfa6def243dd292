"""Runs a setting's cells side by side, one training a process, and gathers their rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console

from tests.benchmarks.harness.pool import processes
from tests.benchmarks.papers.recombine import extractors, pair_settings, transfer, uda
from tests.benchmarks.papers.recombine.request import Request
from tests.benchmarks.papers.recombine.rows import Row, bounded

Measure = Callable[[Request, ProcessPoolExecutor, Console], list[Row]]

SETTINGS: dict[str, Measure] = {
    **dict.fromkeys(pair_settings.SETTINGS, pair_settings.measure),
    "uda": uda.measure,
    "transfer": transfer.measure,
    "architectures": extractors.measure,
}


def measure(request: Request, console: Console) -> list[Row]:
    """Return all rows, seed by seed, in the order of methods."""
    with processes(request.workers) as pool:
        return bounded(SETTINGS[request.setting](request, pool, console))
