"""Ray's node is killed: the coordinator is to stop and be started again; no merge is to blame."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import UnreachableError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.inspection import InspectionJob
from rootstock.coordinator.jobs.runner import JobRunner
from tests.support.net_trees import founded


@pytest.fixture
def short_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set a TMPDIR that has room for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


@pytest.fixture
def runner(short_temporary_folder: Path) -> Iterator[JobRunner]:
    running = JobRunner(JobsConfig(local_cpus=1))
    running.start()
    yield running
    running.stop()


def send(number: signal.Signals, name: str) -> None:
    for process in psutil.Process().children(recursive=True):
        if process.name() == name:
            process.send_signal(number)


def delete_sockets() -> None:
    for socket in Path(tempfile.gettempdir()).glob("rootstock-ray-*/session_*/sockets/*"):
        socket.unlink()


FAULTS: dict[str, Callable[[], None]] = {
    "raylet killed": partial(send, signal.SIGKILL, "raylet"),
    "raylet stopped": partial(send, signal.SIGSTOP, "raylet"),
    "GCS killed": partial(send, signal.SIGKILL, "gcs_server"),
    "GCS stopped": partial(send, signal.SIGSTOP, "gcs_server"),
    "temporary folder cleaned": delete_sockets,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_ray_ends_the_watch_and_leaves_nothing(
    runner: JobRunner, fault: str, short_temporary_folder: Path
) -> None:
    children = psutil.Process().children(recursive=True)

    async def run() -> None:
        watch = asyncio.create_task(runner.watch())
        await asyncio.sleep(0)
        FAULTS[fault]()
        with pytest.raises(UnreachableError, match="start the coordinator again"):
            await asyncio.wait_for(watch, 60)

    asyncio.run(run())
    runner.stop()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert list(short_temporary_folder.iterdir()) == []


def test_a_dead_node_is_nobodys_fault(runner: JobRunner, tmp_path: Path) -> None:
    job = InspectionJob(
        merge_id="mrg-0001",
        tree=founded(),
        features=False,
        artifacts=str(tmp_path),
    )

    async def run() -> None:
        send(signal.SIGKILL, "raylet")
        with pytest.raises(UnreachableError, match="Ray has failed"):
            await asyncio.wait_for(runner.inspect(job), 60)

    asyncio.run(run())
