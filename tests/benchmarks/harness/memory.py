"""How much resident memory a piece of work adds to this process at its peak (Linux)."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from rootstock.common.errors import ConfigurationError, TransplantError
from tests.benchmarks.harness.processes import command, environment

_SELF = Path("/proc/self")


class PeakMemory:
    """Peak resident memory above where it was made, in bytes.

    Raises
    ------
    ConfigurationError
        Where the system does not count it (only Linux does).
    """

    def __init__(self) -> None:
        if not (_SELF / "clear_refs").exists():
            raise ConfigurationError("peak memory is read from /proc, which only Linux has")
        gc.collect()
        # Memory that the allocator keeps from earlier work would hide growth.
        ctypes.CDLL(None).malloc_trim(0)
        (_SELF / "clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
        self._before = status_of("VmRSS")

    def growth(self) -> int:
        """Return the peak since then, less what was resident at the start."""
        return max(0, status_of("VmHWM") - self._before)


def print_peak(work: Callable[[], object]) -> None:
    """Be a process of `peak_of`: do the work, print the bytes that it added at its peak."""
    memory = PeakMemory()
    work()
    print(json.dumps({"peak": memory.growth()}))


def peak_of(module: str, *words: str) -> int:
    """Run a module as a process of its own, which ends with `print_peak`; return its bytes."""
    done = subprocess.run(
        command(module, *words), stdout=subprocess.PIPE, env=environment(), check=False
    )
    if done.returncode != 0:
        raise TransplantError(
            f"the process that reads the memory of {' '.join(words)} ended with code "
            f"{done.returncode}; its error is above, and more memory may be needed"
        )
    return int(json.loads(done.stdout)["peak"])


def status_of(name: str) -> int:
    for line in (_SELF / "status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise ConfigurationError(f"/proc/self/status has no {name}")
