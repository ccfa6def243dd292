"""Runs a measurement's parts side by side, one core each, and shows how far they are."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rootstock.common.heap import keep_tensors

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class Workers:
    """Processes of one thread each, and where they show how far they are."""

    def __init__(self, pool: ProcessPoolExecutor, console: Console) -> None:
        self._pool = pool
        self._console = console

    def run(
        self, what: str, function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]
    ) -> list[_Result]:
        """Call a function for each argument; results in the arguments' order."""
        futures: list[Future[_Result]] = [
            self._pool.submit(function, argument) for argument in arguments
        ]
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=len(futures))
            for future in as_completed(futures):
                future.result()  # the first failure ends the run
                progress.advance(task)
        return [future.result() for future in futures]

    def rows(
        self,
        what: str,
        function: Callable[[_Argument], list[_Result]],
        arguments: Iterable[_Argument],
    ) -> list[_Result]:
        """Call a function for each argument; return all the rows."""
        return [row for rows in self.run(what, function, arguments) for row in rows]

    def fill(
        self, what: str, function: Callable[[_Argument], object], arguments: Iterable[_Argument]
    ) -> None:
        """Call a function for each argument for what it leaves in the cache."""
        self.run(what, partial(_without_result, function), arguments)


def _without_result(function: Callable[[Any], object], argument: object) -> None:
    function(argument)


_PR_SET_PDEATHSIG = 1


def _settle() -> None:
    """Give a worker one thread and its memory; it ends with who started it, killed or not."""
    torch.set_num_threads(1)
    keep_tensors()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def workers(count: int, console: Console) -> Iterator[Workers]:
    """Start that many processes, one thread each."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(count, mp_context=context, initializer=_settle) as pool:
        yield Workers(pool, console)
