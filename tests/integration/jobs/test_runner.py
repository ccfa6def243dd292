"""Jobs on a real local Ray, with processes that are really killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from rootstock.common.errors import (
    ConfigurationError,
    NotFoundError,
    TransplantError,
    UnreachableError,
)
from rootstock.coordinator.config import DistillationConfig, JobsConfig
from rootstock.coordinator.jobs.checkpoint import load
from rootstock.coordinator.jobs.local_ray import LocalRay
from rootstock.coordinator.jobs.model import JobResult, Progress, TransplantJob
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.jobs.worker import TransplantWorker
from rootstock.coordinator.paths import job_area
from rootstock.coordinator.registry import MergeState
from tests.support.coordinator_context import open_context
from tests.support.merges import merge_runner
from tests.support.shared_samples import HOME, TASKS, learning, queued, with_samples
from tests.support.transplant_jobs import PAPERS, Transplant

ACTOR = "ray::TransplantActor"
SETTINGS = DistillationConfig(draws=64, steps=200, learning_rate=1e-2, **PAPERS)


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    running = JobRunner(JobsConfig(local_cpus=1, max_restarts=1))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def transplant(tmp_path_factory: pytest.TempPathFactory) -> Transplant:
    return Transplant(tmp_path_factory.mktemp("transplant"))


def actors() -> list[psutil.Process]:
    """Processes that hold a job at this moment."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith(ACTOR):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def in_this_process(job: TransplantJob) -> JobResult:
    worker = TransplantWorker(job)
    while not worker.advance().done:
        pass
    return worker.result()


async def test_a_killed_process_changes_no_bit(
    runner: JobRunner, transplant: Transplant, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[Progress] = []
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == 100 and not killed:
            (actor,) = actors()
            killed.append(actor.pid)
            actor.send_signal(signal.SIGKILL)

    job = transplant.job("killed", settings=SETTINGS, checkpoint_steps=20)
    with capture_logs() as logged:
        result = await runner.run(job, watch)
    undisturbed = in_this_process(transplant.job("undisturbed", settings=SETTINGS))
    assert len(killed) == 1
    assert [(entry["event"], entry["merge"]) for entry in logged] == [
        ("job.process_died", "killed")
    ]
    assert capfd.readouterr().out == ""  # Ray has much to say about a death, but not there
    assert [p.step for p in seen] == [1, *range(20, 201, 20)]  # no step was lost or repeated
    assert result.zero_sample == undisturbed.zero_sample
    assert result.few_sample == undisturbed.few_sample
    assert result.curves == undisturbed.curves


async def test_jobs_wait_for_their_turn_and_free_their_actors(
    runner: JobRunner, transplant: Transplant
) -> None:
    # One CPU for two jobs of one CPU each.
    jobs = [transplant.job(f"turn-{i}", samples=None) for i in range(2)]
    one, two = await asyncio.gather(*(runner.run(job) for job in jobs))
    assert one.zero_sample == two.zero_sample
    for _ in range(600):
        if not actors():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"still there: {actors()}")


async def test_a_fault_of_the_job_is_raised_as_itself_and_not_retried(
    runner: JobRunner, transplant: Transplant
) -> None:
    missing = transplant.teacher.model_copy(update={"digest": "0" * 64})
    with pytest.raises(NotFoundError, match="000000") as caught:
        await runner.run(transplant.job("fault", teacher_task_module=missing))
    assert type(caught.value) is NotFoundError


async def test_a_process_that_always_dies_ends_the_job(
    runner: JobRunner, transplant: Transplant
) -> None:
    async def kill_all() -> None:
        while True:
            for actor in actors():
                actor.send_signal(signal.SIGKILL)
            await asyncio.sleep(0.02)

    killer = asyncio.create_task(kill_all())
    try:
        with pytest.raises(TransplantError, match=r"merge doomed.*died 2 times"):
            await runner.run(transplant.job("doomed", settings=SETTINGS))
    finally:
        killer.cancel()


async def test_a_merge_whose_process_always_dies_leaves_no_sample(
    runner: JobRunner, tmp_path: Path
) -> None:
    with open_context(tmp_path, TASKS) as context:
        context = learning(context, tmp_path / "own")
        merge, _ = await asyncio.to_thread(queued, context)
        before = [blob.digest for blob in context.store.blobs()]
        deaths = 0

        async def kill_once_it_has_checkpoints() -> None:
            nonlocal deaths
            while True:
                if context.store.area(job_area(merge.id)).get_ref("checkpoint") is not None:
                    for actor in actors():
                        deaths += 1
                        actor.send_signal(signal.SIGKILL)
                await asyncio.sleep(0.02)

        killer = asyncio.create_task(kill_once_it_has_checkpoints())
        try:
            await merge_runner(context, runner).carry(merge.id)
        finally:
            killer.cancel()
        ended = context.registry.merges.get(merge.id)
        assert ended.state is MergeState.FAILED
        assert "died 2 times" in ended.reason
        assert deaths >= 2
        assert list(context.store.areas("jobs")) == []
        assert [blob.digest for blob in context.store.blobs()] == before
        assert with_samples(context) == HOME


async def test_a_cancelled_job_can_go_on_later(runner: JobRunner, transplant: Transplant) -> None:
    job = transplant.job("cancelled", settings=SETTINGS, checkpoint_steps=20)
    started = asyncio.Event()
    running = asyncio.create_task(runner.run(job, lambda _: started.set()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert load(transplant.store.area(job_area("cancelled")), job).zero_sample is not None
    assert in_this_process(job).few_sample is not None


_OTHER = """
import json, os, signal
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.runner import JobRunner
runner = JobRunner(JobsConfig(local_cpus=3))
runner.start()
import ray
print(json.dumps({
    "cpus": ray.cluster_resources()["CPU"],
    "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "store": ray.cluster_resources()["object_store_memory"],
    "guarded": os.environ["RAY_AUTH_MODE"],
    "usage": os.environ["RAY_USAGE_STATS_ENABLED"],
}))
runner.stop()
"""


def test_two_coordinators_share_nothing(runner: JobRunner) -> None:
    # Unix sockets need a shorter path than pytest's folders have.
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        done = subprocess.run(
            [sys.executable, "-c", _OTHER],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "TMPDIR": folder},
        )
        assert list(Path(folder).iterdir()) == []  # nothing is left behind
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "cpus": 3.0,  # not the one CPU of the Ray that is there already
        "sigterm": True,
        "store": 100 << 20,
        "guarded": "token",
        "usage": "0",
    }


def test_an_actor_that_fits_nowhere_is_refused(runner: JobRunner) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs\.num_gpus = 64 fits on no node"):
        LocalRay(JobsConfig(num_gpus=64)).require_room()
    LocalRay(JobsConfig(num_cpus=1)).require_room()


def test_a_cluster_that_does_not_answer_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(UnreachableError, match=address):
            JobRunner(JobsConfig(ray_address=address)).start()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "head", ":6379"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        JobRunner(JobsConfig(ray_address=address)).start()


def test_a_temporary_folder_too_deep_for_sockets_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigurationError, match="set TMPDIR to a shorter one"):
        JobRunner(JobsConfig()).start()
    assert list(deep.iterdir()) == []
