"""Joins are run in Ray's processes: the coordinator's own runs no net."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load
from structlog.testing import capture_logs
from torch import nn

from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history.files import FEATURES, write_files
from rootstock.coordinator.history.recorder import gather
from rootstock.coordinator.jobs import runner
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.inspection import inspection_job
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.probe import probe_job
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Merge, MergeState
from tests.support.coordinator_context import open_context, receive, teacher
from tests.support.merges import evaluating, merge_runner, report, with_policy


@pytest.fixture(scope="module")
def ray_runner() -> Iterator[JobRunner]:
    running = JobRunner(JobsConfig(local_cpus=1, max_restarts=1))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[CoordinatorContext]:
    (tmp_path / "state").mkdir()
    with open_context(tmp_path / "state") as context:
        yield with_policy(context, max_error=100.0, max_above_teacher=100.0)


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError(f"a net runs in the coordinator's process ({threading.current_thread()})")


async def test_a_merge_and_its_report_run_no_net_in_the_coordinators_process(
    ray_runner: JobRunner,
    context: CoordinatorContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merge = await _evaluating(context, tmp_path)
    report(context, merge)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "__call__", refuse)
        await merge_runner(context, ray_runner).carry(merge.id)
        merge = context.registry.merges.get(merge.id)
        assert merge.state is MergeState.MERGED
        record = gather(context.net, context.config, merge)
        write_files(record, tmp_path)
    assert record.features is not None
    assert (tmp_path / FEATURES).stat().st_size > 10_000
    view = context.net
    assert verify_version(view, 2, context.key.public_key) == []


async def test_a_teacher_is_probed_outside_of_the_coordinators_process(
    ray_runner: JobRunner, context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, store = context.registry, context.store
    honest = teacher(context, "cat-lab", "cat")
    zeros = await asyncio.to_thread(zeroed, context, honest.task_modules["classification"])
    poison = honest.model_copy(update={"task_modules": {"classification": zeros}})
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "__call__", refuse)
        for manifest, answer in ((honest, None), (poison, "dead: task module 'classification'")):
            submission = registry.submissions.get(receive(context, manifest))
            refusal = await merge_runner(context, ray_runner).probe(submission)
            assert (refusal or "").startswith(answer or "")
            assert (refusal is None) == (answer is None)
    store.delete(zeros.digest)
    with pytest.raises(NotFoundError, match=zeros.digest):
        await merge_runner(context, ray_runner).probe(submission)


async def test_a_probe_that_takes_too_long_is_ended_and_refuses_its_net(
    ray_runner: JobRunner, context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(job: bytes, threads: int) -> bytes:
        time.sleep(600)
        return job

    submission = context.registry.submissions.get(
        receive(context, teacher(context, "cat-lab", "cat"))
    )
    with monkeypatch.context() as patched:
        patched.setattr(runner, "probe", slow)
        job = probe_job(context, submission).model_copy(update={"seconds": 0.5})
        result = await ray_runner.probe(job)
    assert result.refusal.startswith("probe: 42 synthetic images took longer than 0.5 s")
    assert (await ray_runner.probe(probe_job(context, submission))).refusal == ""


async def test_a_probe_whose_process_dies_is_no_word_against_its_net(
    ray_runner: JobRunner,
    context: CoordinatorContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = tmp_path / "tries"

    def dies(job: bytes, threads: int) -> bytes:
        with tries.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
        return job

    def lacks(job: bytes, threads: int) -> bytes:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    submission = context.registry.submissions.get(
        receive(context, teacher(context, "cat-lab", "cat"))
    )
    for fault in (dies, lacks):
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(runner, "probe", fault)
            with pytest.raises(UnreachableError, match="died 2 times on this machine"):
                await merge_runner(context, ray_runner).probe(submission)
        assert [entry["event"] for entry in logs] == ["probe.process_died"] * 2
    assert tries.read_text() == "xx"


def zeroed(context: CoordinatorContext, blob: BlobEntry) -> BlobEntry:
    weights = load(context.store.local_path(blob.digest).read_bytes())
    return put_tensors(context.store, {name: value * 0 for name, value in weights.items()})


async def test_a_join_whose_blob_is_gone_is_named(
    ray_runner: JobRunner, context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = await _evaluating(context, tmp_path)
    report(context, merge)
    await merge_runner(context).carry(merge.id)
    tree = context.tree()
    assert tree is not None
    adapter = tree.edge("dog", "classification").adapter
    assert adapter is not None
    context.store.delete(adapter.blob.digest)
    job = inspection_job(merge, tree, StatePaths(context.config))
    with pytest.raises(NotFoundError, match=adapter.blob.digest):
        await ray_runner.inspect(job)


async def _evaluating(context: CoordinatorContext, tmp_path: Path) -> Merge:
    return await asyncio.to_thread(evaluating, context, tmp_path)
