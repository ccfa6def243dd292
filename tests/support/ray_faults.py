"""A Ray as a coordinator starts it, broken in one way: FAULT TEMPORARY_FOLDER.

Prints the numbers of Ray's processes; ends with the exit code of what was raised. In a process of
its own: Ray itself ends one that has lost its node, at times before anybody else has noticed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from rootstock.common.errors import UnreachableError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.inspection import InspectionJob
from rootstock.coordinator.jobs.runner import JobRunner
from tests.support.net_trees import founded


def send(number: signal.Signals, name: str) -> None:
    for process in psutil.Process().children(recursive=True):
        if process.name() == name:
            process.send_signal(number)


def delete_sockets() -> None:
    found = list(Path(tempfile.gettempdir()).glob("rootstock-ray-*/r/session_*/sockets/*"))
    assert found, "Ray has its sockets elsewhere"
    for socket in found:
        socket.unlink()


FAULTS: dict[str, Callable[[], None]] = {
    "raylet killed": partial(send, signal.SIGKILL, "raylet"),
    "raylet stopped": partial(send, signal.SIGSTOP, "raylet"),
    "GCS killed": partial(send, signal.SIGKILL, "gcs_server"),
    "GCS stopped": partial(send, signal.SIGSTOP, "gcs_server"),
    "temporary folder cleaned": delete_sockets,
}

AT_THE_START = "raylet killed as it starts"

INSPECTION = "raylet killed, inspection"


def kill_the_first_raylet() -> None:
    while not [each for each in psutil.Process().children(recursive=True) if is_raylet(each)]:
        time.sleep(0.01)
    send(signal.SIGKILL, "raylet")


def is_raylet(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() == "raylet"
    return False


async def watched(runner: JobRunner, fault: str) -> None:
    watch = asyncio.create_task(runner.watch())
    await asyncio.sleep(0)
    FAULTS[fault]()
    await watch


async def inspected(runner: JobRunner, folder: str) -> None:
    FAULTS["raylet killed"]()
    job = InspectionJob(merge_id="mrg-0001", tree=founded(), features=False, artifacts=folder)
    await runner.inspect(job)


def main(fault: str, folder: str) -> int:
    tempfile.tempdir = folder
    runner = JobRunner(JobsConfig(local_cpus=1))
    if fault == AT_THE_START:
        threading.Thread(target=kill_the_first_raylet, daemon=True).start()
    try:
        runner.start()
    except UnreachableError as error:
        print("", flush=True)
        print(error, file=sys.stderr)
        return error.exit_code
    print(*(each.pid for each in psutil.Process().children(recursive=True)), flush=True)
    work = inspected(runner, folder) if fault == INSPECTION else watched(runner, fault)
    try:
        asyncio.run(work)
    except UnreachableError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        runner.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
