"""Runs a measurement's parts side by side, one core each, and shows how far they are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def processes(workers: int) -> ProcessPoolExecutor:
    """Return a pool of that many processes, one thread each."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )


def run_all(
    pool: ProcessPoolExecutor,
    what: str,
    function: Callable[[_Argument], _Result],
    arguments: Iterable[_Argument],
    console: Console,
) -> list[_Result]:
    """Run a function for each argument; results in the arguments' order."""
    futures: list[Future[_Result]] = [pool.submit(function, argument) for argument in arguments]
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=len(futures))
        for future in as_completed(futures):
            future.result()  # the first failure ends the run
            progress.advance(task)
    return [future.result() for future in futures]
