"""Ray's node is killed: the coordinator is to stop and be started again; no merge is to blame."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import UnreachableError
from tests.support.checkout import CHECKOUT
from tests.support.ray_faults import AT_THE_START, FAULTS, INSPECTION


@pytest.fixture
def short_temporary_folder() -> Iterator[Path]:
    """Make a folder that has room for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(
        prefix="rs-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def broken(fault: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], list[int]]:
    """Break a Ray in a process of its own; return how that ended, and Ray's processes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.ray_faults", fault, str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=CHECKOUT,
    )
    return done, [int(number) for number in done.stdout.splitlines()[0].split()]


def of_ray(numbers: list[int]) -> list[psutil.Process]:
    left = []
    for number in numbers:
        with suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(number))
    return left


@pytest.mark.parametrize("fault", [*FAULTS, INSPECTION])
def test_a_fault_of_ray_ends_the_coordinator_s_process(
    fault: str, short_temporary_folder: Path
) -> None:
    done, numbers = broken(fault, short_temporary_folder)
    assert done.returncode != 0, "nobody has noticed"
    if done.returncode != UnreachableError.exit_code:
        # Ray was faster, and has ended the process by itself; nothing of ours could be done.
        for process in of_ray(numbers):
            process.kill()
        return
    expected = "Ray has failed" if fault == INSPECTION else "start the coordinator again"
    assert expected in done.stderr
    assert psutil.wait_procs(of_ray(numbers), timeout=60)[1] == []
    assert list(short_temporary_folder.iterdir()) == []


def test_a_raylet_that_dies_as_it_starts_is_worth_another_try(short_temporary_folder: Path) -> None:
    """Ray itself raises a plain exception, or ends the process with 1; `up` tries both again."""
    done, _ = broken(AT_THE_START, short_temporary_folder)
    assert done.returncode in (1, UnreachableError.exit_code)
    if done.returncode == UnreachableError.exit_code:
        assert "start the coordinator again" in done.stderr
