"""One merge, from queued to its end: distil, have the owning lab evaluate, decide, commit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from common.errors import ConflictError, RootstockError, StorageError, UnreachableError
from common.nets.calibration import Calibration
from common.nets.spec import Setting
from common.weights.manifest import AdapterEntry, TeacherManifest
from coordinator.evaluating import (
    REFINED,
    answer,
    ask,
    calibration_of,
    candidates_of,
    numbers_of,
    refined_adapter,
)
from coordinator.growth import (
    Found,
    NewCategory,
    NewTask,
    acceptance,
    error_key,
    next_version,
)
from coordinator.jobs.model import JobResult, Progress, TransplantJob
from coordinator.jobs.runner import JobRunner
from coordinator.ledger import Ledger, version_event
from coordinator.places import Places
from coordinator.registry import OPEN_MERGES, Merge, MergeState, Submission
from coordinator.registry.states import DIRECT_OPERATIONS

OPERATIONS: dict[str, type[Found] | type[NewCategory] | type[NewTask]] = {
    kind.name: kind for kind in (Found, NewCategory, NewTask)
}


@dataclass(frozen=True)
class _Join:
    """How a merge joins its modules; by default as they came: they were trained together."""

    candidate: str | None = None
    adapter: AdapterEntry | None = None
    calibration: Calibration = field(default_factory=Calibration)


class Transplanter:
    """Carries one merge at a time through its states; many may be carried side by side."""

    def __init__(self, ledger: Ledger, runner: JobRunner, places: Places) -> None:
        self._ledger = ledger
        self._runner = runner
        self._places = places
        self._committing = asyncio.Lock()
        self._log = structlog.get_logger("transplant")

    def ready(self, merge: Merge) -> bool:
        """Say whether an open merge can be carried on.

        A task that comes along waits until the merge that brings its category module has ended
        (paper, appendix: way 2); if that one came to nothing, so will this one.
        """
        if merge.operation != NewTask.name:
            return True
        bringing = [
            other
            for other in self._ledger.registry.merges.all(*OPEN_MERGES)
            if other.submission_id == merge.submission_id and other.operation != NewTask.name
        ]
        return not bringing

    async def carry(self, merge_id: str) -> None:
        """Go on from the state that the merge is in, to its end.

        A failure of the merge itself (maths that has no answer, a report that breaks a rule)
        ends it as `failed` with the reason.

        Raises
        ------
        StorageError, UnreachableError
            What waiting may mend; the merge stays as it is.
        """
        registry = self._ledger.registry
        merge = await asyncio.to_thread(registry.merges.get, merge_id)
        submission = await asyncio.to_thread(registry.submissions.get, merge.submission_id)
        try:
            if merge.operation in DIRECT_OPERATIONS:
                async with self._committing:
                    merge = await asyncio.to_thread(self._commit_directly, merge, submission)
            if merge.state not in OPEN_MERGES:
                return
            if merge.state is MergeState.QUEUED:
                merge = await asyncio.to_thread(
                    registry.merges.advance, merge.id, MergeState.DISTILLING
                )
            if merge.state is MergeState.DISTILLING:
                merge = await self._distil(merge, submission)
            if merge.state is MergeState.EVALUATING:
                await self._conclude(merge, submission)
        except (StorageError, UnreachableError):
            raise
        except RootstockError as error:
            self._log.warning("failed", merge=merge_id, error=str(error))
            await asyncio.to_thread(
                self._ledger.end, merge, submission.site, MergeState.FAILED, str(error)
            )

    async def _distil(self, merge: Merge, submission: Submission) -> Merge:
        registry = self._ledger.registry
        manifest = self._ledger.teacher(submission)
        job = await asyncio.to_thread(self._job, merge, manifest)
        loop = asyncio.get_running_loop()

        def show(progress: Progress) -> None:
            loop.run_in_executor(
                None,
                lambda: registry.merges.update(merge.id, step=progress.step, steps=progress.steps),
            )

        result = await self._runner.run(job, show)
        for stage, reason in result.fallbacks.items():
            self._log.warning("fell back", merge=merge.id, stage=stage, reason=reason)
        numbers = teacher_numbers(manifest, merge.task)
        if manifest.shared_samples is not None:
            numbers["few_samples"] = float(manifest.shared_samples.count)
        numbers |= {f"seconds/{stage}": spent for stage, spent in result.seconds.items()}
        return await asyncio.to_thread(
            registry.merges.advance,
            merge.id,
            MergeState.EVALUATING,
            job_result=result.model_dump(mode="json"),
            numbers=numbers,
        )

    def _job(self, merge: Merge, manifest: TeacherManifest) -> TransplantJob:
        ledger = self._ledger
        tree = ledger.tree()
        if tree is None:
            raise ConflictError(f"merge {merge.id}: there is no net to join; found one first")
        student = tree.task_modules[merge.task]
        task = ledger.plan.task(merge.task)
        if task is None:
            raise ConflictError(f"merge {merge.id}: the plan has no task {merge.task!r} any more")
        samples = manifest.shared_samples
        return TransplantJob(
            merge_id=merge.id,
            task=task,
            teacher_architecture=manifest.architecture,
            student_architecture=student.architecture,
            category_module=manifest.category_module,
            teacher_task_module=manifest.task_modules[merge.task],
            student_task_module=student.blob,
            samples=samples.blob if samples is not None else None,
            teacher_statistics=manifest.statistics,
            student_statistics=ledger.teacher_of(student.submission).statistics,
            task_measured=merge.task == min(manifest.task_modules),
            settings=ledger.config.distillation_for(task),
            artifacts=self._places.artifacts,
            cache=str(self._places.cache),
            checkpoint_steps=ledger.config.jobs.checkpoint_steps,
        )

    async def _conclude(self, merge: Merge, submission: Submission) -> None:
        """Ask the owning lab, wait for its numbers however long that takes, and decide."""
        result = JobResult.model_validate(merge.job_result)
        candidates = candidates_of(result)
        await asyncio.to_thread(ask, self._ledger, merge, submission, candidates)
        report = await answer(self._ledger.registry, merge.id)
        if report.failure:
            raise ConflictError(
                f"{submission.site} could not evaluate the candidates: {report.failure}"
            )
        if report.refinement_manifest_digest:
            candidates[REFINED] = await asyncio.to_thread(
                refined_adapter, self._ledger, report, result.zero_sample.spec
            )
        merge = await asyncio.to_thread(
            self._ledger.registry.merges.update, merge.id, numbers=numbers_of(report)
        )
        verdict = acceptance(self._ledger.config.acceptance, merge.numbers)
        if not verdict.accepted or verdict.candidate is None:
            await asyncio.to_thread(
                self._ledger.end, merge, submission.site, MergeState.REJECTED, verdict.reason
            )
            return
        calibration = calibration_of(report, verdict.candidate)
        join = _Join(verdict.candidate, candidates[verdict.candidate], calibration)
        await self._commit(merge, submission, join)

    async def _commit(self, merge: Merge, submission: Submission, join: _Join) -> None:
        """Make the next net version; commits are serial, whatever learns side by side."""
        async with self._committing:
            await asyncio.to_thread(self._commit_now, merge, submission, join)

    def _commit_directly(self, merge: Merge, submission: Submission) -> Merge:
        """Join what was trained together; returns the merge as it then stands.

        A task that another lab has brought in the meantime has its module already: the category is
        transplanted onto that one.
        """
        tree, merges = self._ledger.tree(), self._ledger.registry.merges
        if merge.operation == NewTask.name and tree is not None and merge.task in tree.task_modules:
            return merges.update(merge.id, operation=NewCategory.name)
        self._commit_now(merge, submission, _Join())
        return merges.get(merge.id)

    def _commit_now(self, merge: Merge, submission: Submission, join: _Join) -> None:
        ledger = self._ledger
        manifest = ledger.teacher(submission)
        head = ledger.head()
        numbers = {**merge.numbers, **teacher_numbers(manifest, merge.task)}
        error = numbers[error_key(join.candidate or "teacher", numbers)]
        record: dict[str, Setting | None] = {
            "id": merge.id,
            "operation": merge.operation,
            "category": merge.category,
            "task": merge.task,
            "site": submission.site,
            "submission": submission.manifest_digest,
            "candidate": join.candidate,
            "adapter": join.adapter.blob.digest if join.adapter is not None else None,
            "calibration_scale": join.calibration.scale,
            "calibration_bias": join.calibration.bias,
            **numbers,
        }
        if merge.job_result is not None:
            record |= JobResult.model_validate(merge.job_result).learned_by()
        tree, unsigned = next_version(
            ledger.tree(),
            ledger.commit_of(head) if head is not None else None,
            OPERATIONS[merge.operation](merge.category, merge.task),
            manifest,
            ledger.plan,
            manifest_digest=submission.manifest_digest,
            adapter=join.adapter,
            calibration=join.calibration,
            error=error,
            merge=record,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        signature = ledger.key.sign(unsigned.signed_bytes()).hex()
        commit = unsigned.model_copy(update={"signature": signature})
        digest = ledger.put(commit)
        ledger.registry.versions.commit(
            commit.number,
            digest,
            ledger.put(tree),
            head.number if head is not None else None,
            merge.id,
            events=[version_event(commit.number, digest, merge.category, merge.task)],
            numbers=numbers,
            candidate=join.candidate,
        )
        self._log.info("merged", merge=merge.id, category=merge.category, task=merge.task)


def teacher_numbers(manifest: TeacherManifest, task: str) -> dict[str, float]:
    """Return what a manifest says of its teacher at a task, as a merge's numbers name it."""
    kinds = {"error": "teacher_error", "mean_iou": "teacher_mean_iou"}
    told = {name: manifest.metrics.get(f"{kind}/{task}") for kind, name in kinds.items()}
    return {name: value for name, value in told.items() if value is not None}
