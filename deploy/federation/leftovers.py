"""Finds and stops what a federation has started, also after its `up` has been killed.

Every process of a federation, with all that it starts in turn (MLflow's workers, Ray's), has a mark
in its environment: the run and the state folder. A process that has another's number by now has
another's mark, and is let alone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

STOP_SECONDS = 15.0
"""Grace between SIGTERM and SIGKILL: an agent ends its chunk, the coordinator its transaction."""

MARK = "ROOTSTOCK_FEDERATION"

_PROC = Path("/proc")


class Marked(NamedTuple):
    """A live process of a federation."""

    pid: int
    parent: int
    command: str


def mark(run: str, folder: Path) -> dict[str, str]:
    """Return what the environment of a run's processes has beside the rest."""
    # Ray's processes name themselves, in the memory of their environment unless they are told.
    return {MARK: f"{run}:{folder}", "SPT_NOENV": "1"}


def marked(folder: Path, run: str = "") -> list[Marked]:
    """Return the live processes of a federation, or of one of its runs; this one is left out."""
    numbers = (int(each.name) for each in _PROC.iterdir() if each.name.isdecimal())
    found = (_read(pid, folder, run) for pid in numbers if pid != os.getpid())
    return [each for each in found if each is not None]


def stop_marked(folder: Path, run: str = "") -> list[Marked]:
    """Stop the processes of a federation: SIGTERM, a grace, SIGKILL to what is left.

    Returns those that were asked to end; the others are what they had started.
    """
    asked: dict[int, Marked] = {}
    deadline = time.monotonic() + STOP_SECONDS
    while (processes := marked(folder, run)) and time.monotonic() < deadline:
        pids = {each.pid for each in processes}
        # To those alone whose parent has ended: a coordinator ends what it has started (Ray's) in
        # the right order.
        first = [each for each in processes if each.parent not in pids and each.pid not in asked]
        _signal(first, signal.SIGTERM, folder, run)
        asked |= {each.pid: each for each in first}
        time.sleep(0.1)
    _signal(processes, signal.SIGKILL, folder, run)
    return list(asked.values())


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process; one that has ended needs none."""
    with _handle(pid) as handle:
        if handle is not None:
            signal.pidfd_send_signal(handle, number)


def _signal(processes: Iterable[Marked], number: signal.Signals, folder: Path, run: str) -> None:
    for process in processes:
        with _handle(process.pid) as handle:
            # Looked at once more: from now on the number stays this process's.
            if handle is not None and _read(process.pid, folder, run) is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)


@contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _read(pid: int, folder: Path, run: str) -> Marked | None:
    """Return a process if it is alive and has the mark."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        command = (_PROC / str(pid) / "cmdline").read_bytes()
        # After the name, which may have blanks: its state and its parent.
        state, parent = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:  # it has just ended, or is another user's
        return None
    if state == "Z" or not any(_is_mark(each, folder, run) for each in environment):
        return None
    words = command.decode(errors="replace").replace("\0", " ")
    return Marked(pid, int(parent), words.strip())


def _is_mark(entry: bytes, folder: Path, run: str) -> bool:
    name, _, value = os.fsdecode(entry).partition("=")
    who, _, where = value.partition(":")
    return name == MARK and where == str(folder) and run in ("", who)


def main() -> None:
    """Wait until the process that started this one has ended, then stop what it has left.

    Its end closes the pipe that is the standard input here, however it ended. Arguments: the state
    folder and the run.
    """
    sys.stdin.read()
    stop_marked(Path(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
