"""What a lab's commands say on standard error while they work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rootstock.deploy.output import PEOPLE


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


def retrying(error: BaseException, seconds: float) -> None:
    """Say that the coordinator is tried again."""
    PEOPLE.print(f"tries again in {seconds:.0f} s: {error}", soft_wrap=True)
