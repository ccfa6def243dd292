"""Jobs done in this process: what Ray's processes do, without Ray around it."""

from __future__ import annotations

import asyncio

from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.jobs.inspection import Inspection, InspectionJob, inspect, inspection_job
from rootstock.coordinator.jobs.model import JobResult, Progress, TransplantJob
from rootstock.coordinator.jobs.probe import ProbeJob, ProbeResult, probe
from rootstock.coordinator.jobs.runner import JobRunner, OnJobProgress
from rootstock.coordinator.jobs.worker import TransplantWorker
from rootstock.coordinator.merges.commit import commit, next_tree
from rootstock.coordinator.merges.result import AcceptedJoin
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Merge, Submission


def inspected(job: InspectionJob) -> Inspection:
    return Inspection.parse(inspect(job.canonical(), 1), what="inspection")


class InThisProcess(JobRunner):
    """Runs every job in a thread of this process."""

    def __init__(self) -> None:
        super().__init__(JobsConfig())

    async def run(
        self, job: TransplantJob, on_progress: OnJobProgress = lambda _: None
    ) -> JobResult:
        def work() -> tuple[Progress, JobResult]:
            worker = TransplantWorker(job)
            while not (progress := worker.advance()).done:
                pass
            return progress, worker.result()

        progress, result = await asyncio.to_thread(work)
        on_progress(progress)
        return result

    async def probe(self, job: ProbeJob) -> ProbeResult:
        answer = await asyncio.to_thread(probe, job.canonical(), 1)
        return ProbeResult.model_validate_json(answer)

    async def inspect(self, job: InspectionJob) -> Inspection:
        return await asyncio.to_thread(inspected, job)


def commit_merge(
    context: CoordinatorContext, merge: Merge, submission: Submission, join: AcceptedJoin
) -> None:
    """Inspect and commit a merge's join."""
    tree = next_tree(context, merge, submission, join)
    inspection = inspected(inspection_job(merge, tree, StatePaths(context.config)))
    commit(context, merge, submission, join, inspection)
