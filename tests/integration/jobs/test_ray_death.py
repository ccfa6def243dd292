"""Ray's node is killed: the coordinator is to stop and be started again; no merge is to blame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import UnreachableError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.inspection import InspectionJob
from rootstock.coordinator.jobs.runner import JobRunner
from tests.support.net_trees import founded


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    """Start a Ray that finds its dead within seconds."""
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_initial_delay_ms", "500")
    running = JobRunner(JobsConfig(local_cpus=1))
    running.start()
    yield running
    running.stop()


def kill_the_node() -> None:
    for process in psutil.Process().children(recursive=True):
        if process.name() == "raylet":
            process.kill()


def test_a_dead_node_is_nobodys_fault_and_ends_the_watch(runner: JobRunner, tmp_path: Path) -> None:
    job = InspectionJob(
        merge_id="mrg-0001",
        tree=founded(),
        features=False,
        artifacts=str(tmp_path),
    )

    async def run() -> None:
        watch = asyncio.create_task(runner.watch())
        kill_the_node()
        with pytest.raises(UnreachableError, match="start the coordinator again"):
            await asyncio.wait_for(watch, 60)
        with pytest.raises(UnreachableError, match="Ray has failed"):
            await asyncio.wait_for(runner.inspect(job), 60)

    asyncio.run(run())
