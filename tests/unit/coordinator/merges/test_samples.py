"""Samples lie in their submission's area and nowhere else, however the job that learns ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights.manifest import SharedSamples
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.areas import sweep_areas
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.merges.forget import forget_samples
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import job_area, samples_area
from rootstock.coordinator.registry import Merge, MergeState, SubmissionState
from tests.support.checkout import CHECKOUT
from tests.support.coordinator_context import open_context, receive, teacher
from tests.support.merges import SITE_KEY, merge_runner, reconcile
from tests.support.shared_samples import (
    HOME,
    TASKS,
    Stopping,
    images,
    learning,
    queued,
    with_samples,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def tasks() -> tuple[TaskSpec, ...]:
    return TASKS


class Failing(Stopping):
    async def stop_here(self, job: TransplantJob) -> None:
        raise TransplantError("the maths has no answer")


class InTurn(Stopping):
    """Ends the job of the first merge while that of the second is half done."""

    def __init__(self) -> None:
        super().__init__()
        self.first: asyncio.Task[None] | None = None
        self.half_done = asyncio.Event()

    async def stop_here(self, job: TransplantJob) -> None:
        if job.task.name == "classification":
            await self.half_done.wait()
            return
        self.half_done.set()
        assert self.first is not None
        await self.first


def test_a_failed_job_leaves_nothing(context: CoordinatorContext, tmp_path: Path) -> None:
    context = learning(context, tmp_path / "own")
    merge, _ = queued(context)
    before = list(context.store.blobs())
    asyncio.run(merge_runner(context, Failing()).carry(merge.id))
    ended = context.registry.merges.get(merge.id)
    assert (ended.state, ended.reason) == (MergeState.FAILED, "the maths has no answer")
    assert list(context.store.areas("jobs")) == []
    assert [blob.digest for blob in context.store.blobs()] == [blob.digest for blob in before]
    assert with_samples(context) == HOME


def test_a_job_that_is_done_leaves_its_result_and_what_the_lab_wants_back_is_gone(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    context = learning(context, tmp_path / "own")
    first, second = queued(context)
    before = {blob.digest for blob in context.store.blobs()}
    asyncio.run(until_asked(context, first, merge_runner(context, Stopping())))
    merge = context.registry.merges.get(first.id)
    result = JobResult.model_validate(merge.job_result)
    assert merge.numbers.few_samples == 9.0  # the sixth of the operator's judges
    learned = {adapter.blob.digest for adapter in result.adapters().values()}
    assert {blob.digest for blob in context.store.blobs()} == before | learned
    assert list(context.store.areas("jobs")) == []
    assert with_samples(context) == HOME
    for merge in (first, second):
        context.end(merge, "dog-lab", MergeState.REJECTED, "enough")
    assert forget_samples(context, "sub-0002") == 4
    assert with_samples(context) == []


async def until_asked(context: CoordinatorContext, merge: Merge, runner: MergeRunner) -> None:
    """Carry a merge until its lab is asked about what was learned."""
    carrying = asyncio.create_task(runner.carry(merge.id))
    while context.registry.evaluations.of_merge(merge.id) is None:
        await asyncio.sleep(0.01)
        if carrying.done():
            raise AssertionError(context.registry.merges.get(merge.id).reason)
    carrying.cancel()
    await asyncio.wait({carrying})


def test_of_two_merges_of_one_lab_none_takes_the_other_s_samples(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    context = learning(context, tmp_path / "own")
    first, second = queued(context)

    async def both() -> None:
        jobs = InTurn()
        runner = merge_runner(context, jobs)
        jobs.first = asyncio.create_task(until_asked(context, first, runner))
        await until_asked(context, second, runner)

    asyncio.run(asyncio.wait_for(both(), 60))
    for merge in (first, second):
        found = context.registry.merges.get(merge.id)
        assert found.state is MergeState.EVALUATING
        assert JobResult.model_validate(found.job_result).few_sample is not None


KILLED = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from tests.support.coordinator_context import open_context
from tests.support.merges import merge_runner
from tests.support.shared_samples import TASKS, Dying, learning
state, own, merge = sys.argv[1:]
with open_context(Path(state), TASKS) as context:
    asyncio.run(merge_runner(learning(context, Path(own)), Dying()).carry(merge))
"""


def test_what_a_killed_coordinator_left_goes_on_or_is_swept_at_the_next_start(
    tmp_path: Path,
) -> None:
    state, own = tmp_path / "state", tmp_path / "own"
    state.mkdir()
    with open_context(state, TASKS) as context:
        merges = queued(learning(context, own))
    for merge in merges:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(state), str(own), merge.id],
            cwd=CHECKOUT,
            timeout=120,
        )
        assert done.returncode == -signal.SIGKILL
    with open_context(state, TASKS) as context:
        context = learning(context, own)
        first, second = merges
        assert list(context.store.areas("jobs")) == [first.id, second.id]
        assert with_samples(context) == HOME
        # The next start: one merge has ended in the meantime, the other goes on where it was.
        context.registry.merges.advance(second.id, MergeState.REJECTED)
        assert sweep_areas(context.registry, context.store) == [job_area(second.id)]
        ref = context.store.area(job_area(first.id)).get_ref("checkpoint")
        assert ref is not None
        asyncio.run(until_asked(context, first, merge_runner(context, Stopping())))
        assert list(context.store.areas("jobs")) == []
        assert with_samples(context) == HOME


def test_a_refused_teacher_s_samples_go_at_once(context: CoordinatorContext) -> None:
    area = context.store.area(samples_area("sub-0001"))
    blob = put_tensors(area, {"images": images(), "labels": torch.full((4,), 7.0)})
    shares = teacher(context, "dog-lab", "dog").model_copy(
        update={"shared_samples": SharedSamples(count=4, blob=blob)}
    )
    dog = receive(context, shares, SITE_KEY)
    submissions = context.registry.submissions
    reconcile(context, until=lambda: submissions.get(dog).state is SubmissionState.REFUSED)
    assert "values: " in submissions.get(dog).reason
    assert list(context.store.areas("samples")) == []
