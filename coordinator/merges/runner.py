"""One merge, from queued to its end: distil, have the owning lab evaluate, decide, commit."""

from __future__ import annotations

import asyncio

import structlog

from rootstock.common.errors import ConflictError, RootstockError, StorageError, UnreachableError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.calibration import Calibration
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.context import CoordinatorContext, reason_text
from rootstock.coordinator.growth.acceptance import Verdict, accept_unevaluated, acceptance
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.inspection import inspection_job
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.commit import Committer, next_tree
from rootstock.coordinator.merges.evaluation import (
    Candidates,
    answer,
    ask,
    numbers_of,
    refined_adapter,
)
from rootstock.coordinator.merges.job import Distiller
from rootstock.coordinator.merges.result import (
    AcceptedJoin,
    MergeResult,
    OperatorJoin,
    stored_result,
)
from rootstock.coordinator.paths import StatePaths, job_area
from rootstock.coordinator.registry import OPEN_MERGES, Merge, MergeState, Submission
from rootstock.coordinator.registry.wait import wait_for


class MergeRunner:
    """Carries merges through their states, each to its end; many side by side."""

    def __init__(
        self, context: CoordinatorContext, committer: Committer, runner: JobRunner
    ) -> None:
        self._context = context
        self._distiller = Distiller(context, runner)
        self._runner = runner
        self._paths = StatePaths(context.config)
        self._committer = committer
        self._log = structlog.get_logger("merge")

    async def carry(self, merge_id: str) -> None:
        """Carry a merge on from its state to its end.

        What it fails in itself (maths that has no answer, a report that breaks a rule) ends it as
        `failed` with the reason. A StorageError or UnreachableError, which waiting may mend, is
        raised, and the merge stays as it is.
        """
        registry = self._context.registry
        merge = await asyncio.to_thread(registry.merges.get, merge_id)
        if merge.state not in OPEN_MERGES:
            return
        submission = await asyncio.to_thread(registry.submissions.get, merge.submission_id)
        try:
            await self._advance(merge, submission)
        except (StorageError, UnreachableError):
            raise
        except RootstockError as error:
            if await self._rejected(merge, submission):
                return
            self._log.warning("merge.failed", merge=merge_id, error=str(error))
            await asyncio.to_thread(
                self._context.end, merge, submission.site, MergeState.FAILED, str(error)
            )

    async def _advance(self, merge: Merge, submission: Submission) -> None:
        registry = self._context.registry
        if await self._rejected(merge, submission):
            return
        learned = stored_result(merge)
        if merge.operation.is_direct:
            await self._join(merge, submission, learned)
            return
        result = learned if isinstance(learned, JobResult) else None
        if merge.state is MergeState.QUEUED:
            merge = await asyncio.to_thread(
                registry.merges.advance, merge.id, MergeState.DISTILLING
            )
        while True:
            if merge.state is MergeState.DISTILLING or result is None:
                merge, result = await self._distil(merge, submission, result)
                if await self._rejected(merge, submission):
                    return
            if not await self._conclude(merge, submission, result):
                return
            # Neither no adapter nor the closed form will do: learn one.
            merge = await asyncio.to_thread(
                registry.merges.advance, merge.id, MergeState.DISTILLING, step=0, steps=0
            )

    async def _join(
        self, merge: Merge, submission: Submission, learned: MergeResult | None
    ) -> None:
        """Join what was trained together, or learned before the merge was queued."""
        if isinstance(learned, OperatorJoin):
            numbers, what = learned.numbers(), "what was learned"
            join = AcceptedJoin(Candidate.OWN_SAMPLES, learned.adapter, result=learned)
        else:
            numbers = teacher_numbers(self._context.teacher(submission), merge.task)
            join, what = AcceptedJoin(), "the teacher net"
        merge = await asyncio.to_thread(
            self._context.registry.merges.update, merge.id, numbers=numbers
        )
        rule = self._context.config.acceptance.rule(merge.task)
        verdict = accept_unevaluated(rule, what, numbers.error_of(join.candidate))
        await self._decide(merge, submission, verdict, join)

    async def _rejected(self, merge: Merge, submission: Submission) -> bool:
        """Say whether the operator has rejected the merge, and end it if so."""
        merge = await asyncio.to_thread(self._context.registry.merges.get, merge.id)
        if merge.decision != "reject":
            return False
        reason = f"rejected by the operator: {merge.decision_reason}"
        await asyncio.to_thread(
            self._context.end, merge, submission.site, MergeState.REJECTED, reason
        )
        return True

    async def _distil(
        self, merge: Merge, submission: Submission, earlier: JobResult | None
    ) -> tuple[Merge, JobResult]:
        """Have a job solve for an adapter, or learn one after an earlier job that only solved."""
        registry = self._context.registry
        manifest = self._context.teacher(submission)
        task = self._context.plan.task(merge.task)
        if task is None:
            raise ConflictError(f"merge {merge.id}: the plan has no task {merge.task!r} any more")
        rule = self._context.config.acceptance.rule(merge.task)
        if rule.take == "first" and earlier is None:
            result = await self._distiller.closed_form(merge, manifest, task)
            numbers = MergeNumbers()
        else:
            result, numbers = await self._distiller.learned(merge, manifest, task)
            if earlier is not None:
                result = result.after(earlier)
        for stage, reason in result.fallbacks.items():
            self._log.warning("distillation.fallback", merge=merge.id, stage=stage, reason=reason)
        failpoint("merge.learned")
        numbers |= teacher_numbers(manifest, merge.task) | MergeNumbers(seconds=result.seconds)
        merge = await asyncio.to_thread(
            registry.merges.advance,
            merge.id,
            MergeState.EVALUATING,
            job_result=result.model_dump(mode="json"),
            numbers=numbers,
        )
        await asyncio.to_thread(self._context.store.drop, job_area(merge.id))
        return merge, result

    async def _conclude(self, merge: Merge, submission: Submission, result: JobResult) -> bool:
        """Ask the owning lab, wait for its numbers however long that takes, and decide.

        Returns True if the merge goes on: no candidate is good enough, and none was learned yet.
        """
        candidates: Candidates = {Candidate.NO_ADAPTER: None, **result.adapters()}
        learned = result.zero_sample
        spec = learned.spec if learned and self._context.config.evaluation.refine else None
        await asyncio.to_thread(
            ask, self._context, merge, submission, candidates, turn=result.turn, refinement=spec
        )
        failpoint("merge.asked")
        patience = self._context.config.evaluation.patience_days
        report = await answer(self._context.registry, merge.id, result.turn, patience)
        if report is None:
            await self._rejected(merge, submission)
            return False
        if report.failure:
            raise ConflictError(
                f"{submission.site} could not evaluate the candidates: {report.failure}"
            )
        if report.refined is not None and learned is not None:
            candidates[Candidate.REFINED] = await asyncio.to_thread(
                refined_adapter, self._context, report.refined.manifest_digest, learned.spec
            )
        merge = await asyncio.to_thread(
            self._context.registry.merges.update, merge.id, numbers=numbers_of(report)
        )
        verdict = acceptance(self._context.config.acceptance.rule(merge.task), merge.numbers)
        if not verdict.accepted and learned is None and merge.state is MergeState.EVALUATING:
            self._log.info("merge.goes_on_to_learn", merge=merge.id, reason=verdict.reason)
            return True
        join = None
        if verdict.candidate is not None:
            calibration = merge.numbers.candidates[verdict.candidate].calibration
            join = AcceptedJoin(
                verdict.candidate,
                candidates[verdict.candidate],
                calibration or Calibration(),
                result,
            )
        await self._decide(merge, submission, verdict, join)
        return False

    async def _decide(
        self, merge: Merge, submission: Submission, verdict: Verdict, join: AcceptedJoin | None
    ) -> None:
        """Merge or reject as the policy says, or as the operator does where the policy asks."""
        accepted = verdict.accepted
        review = self._context.config.acceptance.review
        asked = review == "always" or (review == "failing" and not accepted)
        if join is not None and (asked or merge.state is MergeState.REVIEWING):
            merge = await self._reviewed(merge, verdict.reason)
            if await self._rejected(merge, submission):
                return
            accepted = True
        if accepted and join is not None:
            tree = await asyncio.to_thread(next_tree, self._context, merge, submission, join)
            inspection = await self._runner.inspect(inspection_job(merge, tree, self._paths))
            merge = await asyncio.to_thread(
                self._context.registry.merges.update,
                merge.id,
                inspection=inspection.model_dump(mode="json"),
            )
            failpoint("merge.inspected")
            await self._committer.commit(merge, submission, join, inspection)
            return
        await asyncio.to_thread(
            self._context.end, merge, submission.site, MergeState.REJECTED, verdict.reason
        )

    async def _reviewed(self, merge: Merge, reason: str) -> Merge:
        """Wait for the operator's decision; `reason` is the policy's."""
        registry = self._context.registry
        if merge.state is not MergeState.REVIEWING:
            merge = await asyncio.to_thread(
                registry.merges.advance, merge.id, MergeState.REVIEWING, reason=reason_text(reason)
            )
            self._log.info("merge.reviewing", merge=merge.id, reason=reason)

        def look() -> Merge | None:
            present = registry.merges.get(merge.id)
            return None if present.decision is None else present

        return await wait_for(registry, merge.id, look)


def teacher_numbers(manifest: TeacherManifest, task: str) -> MergeNumbers:
    """Return a teacher's numbers at a task, as its manifest states them."""
    return MergeNumbers(
        teacher_error=manifest.metrics.get(f"error/{task}"),
        teacher_mean_iou=manifest.metrics.get(f"mean_iou/{task}"),
    )
