"""Two tasks in one net: which merges they make, and how adapters below them are learned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rootstock.common.config import check
from rootstock.common.errors import ConfigurationError, SchemaError, StorageError
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig, DistillationConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.registry import MergeState, SubmissionState
from tests.support.coordinator_context import SEGMENTATION, receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import merge_runner

CLASSIFICATION = TaskSpec(name="classification")


class FullDisk(InThisProcess):
    """Takes jobs and does none."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[TransplantJob] = []

    async def run(self, job: TransplantJob, on_progress: object = None) -> JobResult:
        self.jobs.append(job)
        raise StorageError("the disk is full")


@pytest.fixture
def tasks() -> tuple[TaskSpec, ...]:
    return (CLASSIFICATION, SEGMENTATION)


def test_a_category_is_transplanted_onto_each_task_that_the_net_holds(
    context: CoordinatorContext,
) -> None:
    runner = FullDisk()
    merging = merge_runner(context, runner)
    merges = context.registry.merges

    def carry(category: str, *operations: tuple[str, str]) -> list[str]:
        submission = receive(context, teacher(context, f"{category}-lab", category))
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        queued = merges.queue(
            submission,
            [Operation(OperationKind(name), category, task) for task, name in operations],
        )
        for merge in queued:
            asyncio.run(merging.carry(merge.id))
        return [merge.id for merge in queued]

    _, first = carry("cat", ("classification", "found"), ("segmentation", "new-task"))
    assert (merges.get(first).state, merges.get(first).operation) == (MergeState.MERGED, "new-task")
    with pytest.raises(StorageError, match="full"):  # its job is asked for: that is the point
        carry("cow", ("segmentation", "new-category"))
    second = merges.all(MergeState.DISTILLING)
    assert [(merge.category, merge.operation) for merge in second] == [("cow", "new-category")]
    (job,) = runner.jobs
    assert job.task == SEGMENTATION
    tree = context.tree()
    assert tree is not None
    assert job.student_task_module == tree.task_modules["segmentation"].blob
    assert job.settings == context.config.segmentation


@pytest.mark.parametrize(
    ("measured", "task", "holds"),
    [
        (None, "classification", True),  # labs that did not say measured the first by name
        (None, "segmentation", False),
        ("segmentation", "segmentation", True),
        ("segmentation", "classification", False),
    ],
)
def test_the_manifest_says_whose_layers_the_statistics_hold(
    context: CoordinatorContext, measured: str | None, task: str, holds: bool
) -> None:
    """What is dreamed from must be the layers that the lab measured, not another task's."""
    runner = FullDisk()
    found = context.registry.merges
    cat = receive(context, teacher(context, "cat-lab", "cat"))
    manifest = teacher(context, "cow-lab", "cow")
    cow = receive(context, manifest.model_copy(update={"measured_task": measured}))
    for submission in (cat, cow):
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    for name, kind in (
        ("classification", OperationKind.FOUND),
        ("segmentation", OperationKind.NEW_TASK),
    ):
        merge = found.create(cat, "cat", name, kind)
        asyncio.run(merge_runner(context, runner).carry(merge.id))
    merge = found.create(cow, "cow", task, OperationKind.NEW_CATEGORY)
    with pytest.raises(StorageError, match="full"):
        asyncio.run(merge_runner(context, runner).carry(merge.id))
    assert [job.task_measured for job in runner.jobs] == [holds]


def test_a_manifest_without_a_measured_task_keeps_its_digest(context: CoordinatorContext) -> None:
    manifest = teacher(context, "cat-lab", "cat")
    assert b"measured_task" not in manifest.canonical()
    with pytest.raises(SchemaError, match=r"measured_task 'depth' is none of .*segmentation"):
        TeacherManifest.parse(
            manifest.model_copy(update={"measured_task": "depth"}).canonical(), what="manifest"
        )


def config(**tables: object) -> CoordinatorConfig:
    values = {
        "net": "animals",
        "state": Path("state"),
        "plan": {"architecture": {"name": "small-vgg", "split": "pool1"}},
    }
    return check(values | tables, CoordinatorConfig, source="coordinator.toml")


def test_a_segmentation_has_settings_of_its_own() -> None:
    found = config(segmentation={"steps": 7, "teaching": {"steps": 9}})
    settings = found.distillation_for(SEGMENTATION)
    assert (settings.steps, settings.start, settings.policy) == (7, "matched", "exp3")
    # What a table leaves out has the segmentation's default, not the classification's.
    assert (settings.teaching.steps, settings.teaching.sample_views) == (9, 600)
    assert found.distillation_for(CLASSIFICATION) == DistillationConfig()
    with pytest.raises(ConfigurationError, match=r"'segmentation\.kernal'; did you mean 'kernel'"):
        config(segmentation={"kernal": 3})


def test_settings_travel_whole() -> None:
    settings = config().distillation_for(SEGMENTATION)
    again = DistillationConfig.parse(settings.canonical(), what="settings")
    assert again.canonical() == settings.canonical()
    assert again.method_settings().canonical() == settings.method_settings().canonical()
