"""Builds the Ray job for a merge and has it run."""

from __future__ import annotations

import asyncio

import structlog

from rootstock.common.distillation.settings import MethodName
from rootstock.common.errors import ConflictError, TransplantError
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.model import JobResult, Progress, TransplantJob, flat_settings
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.samples import FewSamples, few_samples
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Merge


class Distiller:
    """Builds a merge's jobs out of what is registered and stored, and has them run."""

    def __init__(self, context: CoordinatorContext, runner: JobRunner) -> None:
        self._context = context
        self._runner = runner
        self._paths = StatePaths(context.config)
        self._log = structlog.get_logger("distillation")

    async def closed_form(
        self, merge: Merge, manifest: TeacherManifest, task: TaskSpec
    ) -> JobResult:
        """Solve for the closed form alone, which takes seconds."""
        job = await asyncio.to_thread(self._job, merge, manifest, task, FewSamples(None, None))
        closed_form = job.settings.model_copy(update={"zero_sample_method": MethodName.CLOSED_FORM})
        job = job.model_copy(update={"settings": closed_form})
        try:
            return (await self._run(merge, job)).closed_form_only()
        except TransplantError as error:
            # No adapter can be asked about all the same, and other methods may have an answer.
            self._log.warning("distillation.no_closed_form", merge=merge.id, error=str(error))
            return JobResult(
                student_task_module=job.student_task_module.digest,
                curves=(),
                seconds={},
                report={},
                settings=flat_settings(job.settings.model_dump(mode="json")),
            )

    async def learned(
        self, merge: Merge, manifest: TeacherManifest, task: TaskSpec
    ) -> tuple[JobResult, MergeNumbers]:
        """Learn, with what samples there are; return the numbers of these, too."""
        samples = await asyncio.to_thread(few_samples, self._context, merge, manifest, task)
        job = await asyncio.to_thread(self._job, merge, manifest, task, samples)
        return await self._run(merge, job), samples.numbers()

    async def _run(self, merge: Merge, job: TransplantJob) -> JobResult:
        show_step, loop = self._context.registry.merges.progress, asyncio.get_running_loop()

        def show(progress: Progress) -> None:
            loop.run_in_executor(None, show_step, merge.id, progress.step, progress.steps)

        return await self._runner.run(job, show)

    def _job(
        self, merge: Merge, manifest: TeacherManifest, task: TaskSpec, samples: FewSamples
    ) -> TransplantJob:
        context = self._context
        tree = context.tree()
        if tree is None:
            raise ConflictError(f"merge {merge.id}: there is no net to join; found one first")
        student = tree.task_modules.get(merge.task)
        if student is None:
            raise ConflictError(
                f"merge {merge.id}: the net has no task module '{merge.task}', and the one that "
                "was on its way came to nothing; have the lab ship its teacher net again"
            )
        founder = context.teacher_of(student.submission)
        return TransplantJob(
            merge_id=merge.id,
            task=task,
            teacher_architecture=manifest.architecture,
            # With the extractor that g_S learned above: its statistics are named by layers of it.
            student_architecture=founder.architecture,
            category_module=manifest.category_module,
            teacher_task_module=manifest.task_modules[merge.task],
            student_task_module=student.blob,
            submission_id=merge.submission_id,
            samples=None if samples.shared is None else samples.shared.blob,
            own_samples=samples.own,
            teacher_statistics=manifest.statistics,
            student_statistics=founder.statistics,
            task_measured=manifest.measures(merge.task),
            settings=context.config.distillation_for(task),
            artifacts=self._paths.artifacts,
            cache=str(self._paths.cache),
            checkpoint_steps=context.config.jobs.checkpoint_steps,
        )
