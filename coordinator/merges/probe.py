"""Has a submission's teacher net run on synthetic images before it is admitted."""

from __future__ import annotations

import asyncio

from rootstock.common.errors import TransplantError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.jobs.probe import ProbeJob
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Submission


async def refusal_of(
    context: CoordinatorContext, runner: JobRunner, submission: Submission
) -> str | None:
    """Return the probe's check that a submission fails, with the value and the rule, or None.

    A net that makes the code fail, or takes too long, is refused, too. UnreachableError if the
    process dies: for want of memory, say, which is this machine's.
    """
    job = await asyncio.to_thread(probe_job, context, submission)
    try:
        result = await runner.probe(job)
    except TransplantError as error:
        return f"probe: {error}"
    return result.refusal or None


def probe_job(context: CoordinatorContext, submission: Submission) -> ProbeJob:
    """Return the job of a submission's probe, held against the net as it is now."""
    plan, tree, paths = context.plan, context.tree(), StatePaths(context.config)
    reference = plan.architecture, plan.initial_category_module
    if tree is not None and tree.task_modules:
        founder = context.teacher_of(tree.task_modules[min(tree.task_modules)].submission)
        reference = founder.architecture, founder.category_module
    return ProbeJob(
        submission_id=submission.id,
        manifest=context.teacher(submission),
        tasks=plan.tasks,
        reference_architecture=reference[0],
        reference=reference[1],
        seconds=context.config.admission.probe_seconds,
        artifacts=paths.artifacts,
        cache=str(paths.cache),
    )
