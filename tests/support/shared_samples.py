"""A lab that shares samples, and jobs that stop in the middle of learning from them."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights.manifest import SharedSamples
from rootstock.coordinator.config import DistillationConfig, SamplesConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.jobs.runner import OnJobProgress
from rootstock.coordinator.jobs.worker import TransplantWorker
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.registry import Merge, SubmissionState
from tests.support.coordinator_context import receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import SITE_KEY, merge_runner

LEARNING = DistillationConfig(
    zero_sample_method="closed-form", few_sample_method="back-distill", steps=4, draws=8
)
TASKS = (TaskSpec(name="classification"), TaskSpec(name="furry"))


HOME = ["artifacts/samples/sub-0002"]
"""Where a lab's samples may be: see `with_samples`."""


class Stopping(InThisProcess):
    """Does a job in this process up to a step of its few-sample stage, and then something else."""

    async def run(
        self, job: TransplantJob, on_progress: OnJobProgress = lambda _: None
    ) -> JobResult:
        worker = TransplantWorker(job.model_copy(update={"checkpoint_steps": 1}))
        while not worker.done:
            progress = worker.advance()
            if progress.stage == "few-sample" and progress.step == 2:
                await self.stop_here(job)
        return worker.result()

    async def stop_here(self, job: TransplantJob) -> None:
        pass


class Dying(Stopping):
    async def stop_here(self, job: TransplantJob) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def images() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def learning(context: CoordinatorContext, folder: Path) -> CoordinatorContext:
    """Give the coordinator samples of its operator's, and a quick method."""
    for side in ("yes", "no"):
        (folder / "dog" / side).mkdir(parents=True, exist_ok=True)
        for index in range(3):
            pixels = np.full((32, 32, 3), 40 * index + (side == "yes"), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "dog" / side / f"{index}.png")
    config = context.config.model_copy(
        update={"distillation": LEARNING, "samples": SamplesConfig(folder=folder)}
    )
    return replace(context, config=config)


def queued(context: CoordinatorContext) -> list[Merge]:
    """Found the net with cat, and queue dog, whose lab shares samples, for both tasks."""
    cat = receive(context, teacher(context, "cat-lab", "cat"), SITE_KEY)
    context.registry.submissions.set_state(cat, SubmissionState.ADMITTED)
    for task, operation in (
        ("classification", OperationKind.FOUND),
        ("furry", OperationKind.NEW_TASK),
    ):
        merge = context.registry.merges.create(cat, "cat", task, operation)
        asyncio.run(merge_runner(context).carry(merge.id))
    area = context.store.area(samples_area("sub-0002"))
    blob = put_tensors(area, {"images": images(), "labels": torch.tensor([1.0, 0.0, 1.0, 0.0])})
    shares = teacher(context, "dog-lab", "dog").model_copy(
        update={"shared_samples": SharedSamples(count=4, blob=blob)}
    )
    dog = receive(context, shares, SITE_KEY)
    assert dog == "sub-0002"
    context.registry.submissions.set_state(dog, SubmissionState.ADMITTED)
    return [
        context.registry.merges.create(dog, "dog", task.name, OperationKind.NEW_CATEGORY)
        for task in TASKS
    ]


def with_samples(context: CoordinatorContext) -> list[str]:
    """Return which files of the whole state hold a byte sequence of the lab's samples."""
    needle = images()[1].numpy().tobytes()
    root = context.config.state
    files = (path for path in root.rglob("*") if path.is_file())
    found = [path.relative_to(root) for path in files if needle in path.read_bytes()]
    return sorted(str(path.parent.parent.parent) for path in found)
