"""Named moments at which a test makes a process fail; in an installed package nothing happens.

Code names a moment between two steps that a crash may part (``failpoint("spool.added")``). A test
that runs from a checkout names a folder in the environment and arms a point by a file there of the
point's name, whose words say what happens::

    kill            the process is killed, as by kill -9
    error           StorageError, as from a disk that reports a fault
    sleep SECONDS   the process waits there

A point fires once for each file: `NAME.fired` is what is left of it, however many processes pass.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from rootstock.common.errors import StorageError

VARIABLE = "ROOTSTOCK_FAILPOINTS"
"""Names the folder of the armed points."""

FAILPOINTS = (
    # a lab
    "teacher.trained",
    "spool.added",
    "upload.opened",
    "upload.sent",
    "receipt.arrived",
    "evaluation.measured",
    "report.spooled",
    "report.sent",
    "event.handled",
    # the coordinator
    "upload.begun",
    "upload.stored",
    "upload.received",
    "submission.checked",
    "merge.queued",
    "merge.learned",
    "merge.asked",
    "report.taken",
    "merge.inspected",
    "commit.stored",
    "commit.moved",
    "history.written",
    # a job
    "job.checkpointed",
    "job.ended",
)
"""Every point, in the order in which a teacher net passes them."""

_CHECKOUT = Path(__file__).resolve().parents[1] / "tests" / "support"


def failpoint(name: str) -> None:
    """Fail here if a test asks for it.

    Raises
    ------
    StorageError
        If the point is armed with `error`.
    """
    folder = os.environ.get(VARIABLE)
    if folder and _CHECKOUT.is_dir():
        _fire(Path(folder), name)


def _fire(folder: Path, name: str) -> None:
    armed, fired = folder / name, folder / f"{name}.fired"
    try:
        armed.rename(fired)  # one process alone
    except FileNotFoundError:
        return
    action, _, argument = fired.read_text().strip().partition(" ")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise StorageError(f"failpoint {name}: as from a disk that reports a fault")
    elif action == "sleep":
        time.sleep(float(argument))
