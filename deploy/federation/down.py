"""Stop a federation, be it one that runs or what a killed one has left."""

from __future__ import annotations

import signal
from pathlib import Path

from rootstock.common.errors import ConflictError
from rootstock.common.files import lock_owner
from rootstock.deploy.federation.folder import has_lock, wait_until_free
from rootstock.deploy.federation.leftovers import Marked, marked, signal_process, stop_marked


def runs_in(folder: Path) -> bool:
    """Say whether anything of a federation runs."""
    return lock_owner(folder) is not None or bool(marked(folder))


def stop_federation(folder: Path) -> list[Marked]:
    """Stop all that runs of a federation, and return what was asked to end.

    An `up` that runs is asked first, and ends what it has started; see `stop_marked` for what is
    left. ConflictError if another user's, or another container's, runs.
    """
    stopped = []
    owner = lock_owner(folder)
    if owner is not None:
        if not has_lock(owner, folder):
            raise ConflictError(
                f"{folder}: process {owner or 'unknown'} uses it, of another user or container; "
                "stop it there"
            )
        stopped.append(Marked(owner, 0, "up"))
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal_process(owner, number)
            if wait_until_free(folder):
                break
    return stopped + stop_marked(folder)
