"""Adapters of several categories on Ray actors: all at once against one after another.

Real jobs over a store in a temporary folder, one CPU an actor, each actor a fresh process as in
service. Jobs are equal and cannot be divided, so n of them on c cores gain n / ceil(n / c) at most.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from math import ceil
from pathlib import Path
from typing import Any

import torch

from rootstock.common.artifacts.local import LocalStore
from rootstock.common.nets.architectures import initial_modules, input_shape
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.coordinator.config import DistillationConfig, JobsConfig
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.paths import samples_area
from tests.benchmarks.system.solver_cases import TASK, UNMEASURED

SAMPLES = 20


def measure(
    architecture: ArchitectureSpec, *, categories: int, draws: int, steps: int, cores: int
) -> dict[str, Any]:
    """Return the row of as many jobs as categories, on nets with random weights.

    A job takes draws of the closed form and steps of the few-sample stage.
    """
    # Before all else: Ray forks, and threads do not survive that.
    runner = JobRunner(JobsConfig(local_cpus=cores, num_cpus=1))
    runner.start()
    try:
        with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as name:
            settings = DistillationConfig(
                zero_sample_method="closed-form",
                few_sample_method="back-distill",
                draws=draws,
                steps=steps,
            )
            jobs = _jobs(Path(name), architecture, categories, settings)
            warm_up, *jobs = jobs
            asyncio.run(_run(runner, [warm_up], at_once=False))
            # A job that is done gives its result at once: what is left is the actor's start.
            start = asyncio.run(_run(runner, [warm_up], at_once=False))
            in_turn = asyncio.run(_run(runner, jobs[:categories], at_once=False))
            together = asyncio.run(_run(runner, jobs[categories:], at_once=True))
    finally:
        runner.stop()
    return UNMEASURED | {
        "net": f"{categories} categories",
        "device": "cpu",
        "parallel_speedup": round(in_turn / together, 2),
        "best_parallel_speedup": round(categories / ceil(categories / cores), 2),
        "cores": cores,
        "in_turn_seconds": in_turn,
        "together_seconds": together,
        "actor_start_seconds": start,
    }


async def _run(runner: JobRunner, jobs: list[TransplantJob], *, at_once: bool) -> float:
    """Return the seconds that jobs take, the start of their actors included."""
    begun = time.perf_counter()
    if at_once:
        await asyncio.gather(*(runner.run(job) for job in jobs))
    else:
        for job in jobs:
            await runner.run(job)
    return time.perf_counter() - begun


def _jobs(
    folder: Path, architecture: ArchitectureSpec, categories: int, settings: DistillationConfig
) -> list[TransplantJob]:
    """Return one job to warm up and two alike for each category."""
    store = LocalStore(folder / "store")
    _, student = initial_modules(architecture, [TASK], seed=0)
    student_blob = put_tensors(store, student[TASK.name].state_dict())
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.rand(SAMPLES, *input_shape(architecture), generator=generator)
    labels_N = (torch.arange(SAMPLES) % 2).float()
    area = store.area(samples_area("sub-0001"))
    samples = put_tensors(area, {"images": images_NCHW, "labels": labels_N})

    def job(merge_id: str, seed: int) -> TransplantJob:
        category_module, teacher = initial_modules(architecture, [TASK], seed=seed)
        return TransplantJob(
            merge_id=merge_id,
            submission_id="sub-0001",
            task=TASK,
            teacher_architecture=architecture,
            student_architecture=architecture,
            category_module=put_tensors(store, category_module.state_dict()),
            teacher_task_module=put_tensors(store, teacher[TASK.name].state_dict()),
            student_task_module=student_blob,
            samples=samples,
            settings=settings,
            artifacts=str(folder / "store"),
        )

    return [
        job("warm-up", 1),
        *(job(f"{way}-{i}", 1 + i) for way in ("turn", "once") for i in range(categories)),
    ]
