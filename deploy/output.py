"""What commands print, and how they take lists.

Results go to standard output, for people or as one JSON object; all else to standard error.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rootstock.common.errors import RootstockError, StorageError
from rootstock.common.text import plain

PEOPLE = Console(stderr=True, highlight=False)
"""Progress, notes and errors."""

RESULT = Console(highlight=False)
"""What a command was asked for, when it was not asked for as JSON."""

_OF_OUTPUT = frozenset(
    {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
)
"""What writing to the standard output fails with; sockets have other errors."""


@contextmanager
def whole_output() -> Iterator[None]:
    """Let a command's output arrive as a whole, whatever it is written to.

    A letter that a stream's encoding lacks is written as its number. StorageError if the standard
    output cannot be written; a reader that has ended, as `head` does, ends the command with 1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # it may be closed
                sys.stdout.flush()
    except RootstockError:
        raise
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_OUTPUT:
            raise
        # What is in the buffer yet would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(1)
        raise StorageError(
            f"standard output: {error.strerror}; free space there, or write it elsewhere"
        ) from error


def print_result(value: dict[str, Any], *shown: RenderableType, as_json: bool) -> None:
    """Print a command's result as JSON, or what people are shown instead: texts and tables."""
    if as_json:
        print_json(value)
        return
    for each in shown:
        # What a peer or a file said is in texts, too: it neither colours nor moves the cursor.
        text = plain(each, len(each)) if isinstance(each, str) else each
        RESULT.print(text, soft_wrap=isinstance(each, str | Text), markup=False)


def print_json(value: dict[str, Any]) -> None:
    """Print exactly one JSON object on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_plain(*lines: str) -> None:
    """Print lines on standard output as they are: no markup, no colour, no folding."""
    typer.echo("\n".join(lines))


def note(text: str) -> None:
    """Print something that the operator should know on standard error."""
    PEOPLE.print(f"note: {plain(text)}", soft_wrap=True, markup=False)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar on a terminal, nothing elsewhere; the context is a function for every step."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=PEOPLE, transient=True, disable=not PEOPLE.is_terminal
    ) as shown:
        task = shown.add_task("", total=None)
        yield lambda step, steps, message: shown.update(
            task, completed=step, total=steps, description=message
        )


class StageLines:
    """Prints what workers do as lines: one for each new stage, and every tenth of a long one."""

    def __init__(self, show: Callable[[str, str], None]) -> None:
        """`show` prints a worker's name and a sentence."""
        self._show = show
        self._last: dict[str, tuple[str, int]] = {}

    def tell(self, worker: str, text: str, step: int = 0, steps: int = 0) -> None:
        """Say that `step` of `steps` of a stage are done."""
        tenth = 10 * step // max(steps, 1)
        # What follows a colon (a loss) changes all the time.
        stage = (text.partition(":")[0], tenth)
        if self._last.get(worker) != stage:
            self._last[worker] = stage
            self._show(worker, text + (f" {10 * tenth}%" if steps > 1 else ""))


def retrying(error: BaseException, seconds: float) -> None:
    """Say that the coordinator is tried again."""
    PEOPLE.print(f"tries again in {seconds:.0f} s: {error}", soft_wrap=True)


def table(
    title: str,
    headings: Iterable[str],
    rows: Iterable[Iterable[str]] = (),
    *,
    whole: Collection[str] = (),
) -> Table:
    """Return a table under a title; columns named in `whole` are never folded."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in headings:
        fixed = heading in whole
        made.add_column(heading, no_wrap=fixed, overflow="ellipsis" if fixed else "fold")
    for row in rows:
        made.add_row(*row)
    return made


def cut(name: str, length: int) -> str:
    """Return a name, shortened with an ellipsis if it is longer."""
    return name if len(name) <= length else name[: length - 1] + "…"


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of an option's value between commas, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
