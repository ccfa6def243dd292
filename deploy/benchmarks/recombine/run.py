"""Runs a setting's cells side by side, one training a process, and gathers their rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console

from deploy.benchmarks.pool import processes
from deploy.benchmarks.recombine import extractors, pair_settings, transfer, uda
from deploy.benchmarks.recombine.request import Request
from deploy.benchmarks.recombine.rows import Row, bounded

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
