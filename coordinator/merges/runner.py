"""One merge, from queued to its end: distil, have the owning lab evaluate, decide, commit."""

from __future__ import annotations

import asyncio

import structlog

from rootstock.common.errors import (
    ConflictError,
    LimitError,
    RootstockError,
    SchemaError,
    StorageError,
    UnreachableError,
)
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.calibration import Calibration
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import AcceptanceRule
from rootstock.coordinator.context import CoordinatorContext, reason_text
from rootstock.coordinator.growth.acceptance import Verdict, accept_unevaluated, acceptance
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.evaluation import (
    Candidates,
    answer,
    ask,
    numbers_of,
    refined_adapter,
)
from rootstock.coordinator.merges.job import Distiller
from rootstock.coordinator.merges.judge import Judge
from rootstock.coordinator.merges.probe import refusal_of
from rootstock.coordinator.merges.result import (
    AcceptedJoin,
    MergeResult,
    OperatorJoin,
    stored_result,
)
from rootstock.coordinator.paths import job_area
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
        self._judge = Judge(context, runner)
        self._committer = committer
        self._log = structlog.get_logger("merge")

    async def probe(self, submission: Submission) -> str | None:
        """Run a submission's teacher net on synthetic images, where nets may run.

        Returns the check that it fails, with the value and the rule; None if it passes.
        """
        return await refusal_of(self._context, self._runner, submission)

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
        """Say whether the operator has rejected the merge, and end it if so.

        One that a roll-back has ended meanwhile needs no end.
        """
        merge = await asyncio.to_thread(self._context.registry.merges.get, merge.id)
        if merge.state not in OPEN_MERGES:
            await asyncio.to_thread(self._context.store.drop, job_area(merge.id))
            return True
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
        for stage, reason in result.without.items():
            self._log.info("distillation.without", merge=merge.id, stage=stage, reason=reason)
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
        What the judge rejected before anything was learned is not judged again.
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
        rule, numbers = self._context.config.acceptance.rule(merge.task), merge.numbers
        may_learn = learned is None and merge.state is MergeState.EVALUATING
        if learned is not None and rule.take == "first" and result.turn > 1:
            before = await asyncio.to_thread(self._judged_before, merge, rule)
            if before is not None:
                rule, numbers = rule.model_copy(update={"take": "best"}), numbers.without(before)
        verdict = acceptance(rule, numbers)
        if not verdict.accepted and may_learn:
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
        return await self._decide(merge, submission, verdict, join, may_learn=may_learn)

    def _judged_before(self, merge: Merge, rule: AcceptanceRule) -> Candidate | None:
        """Return the candidate that the lab's first numbers spoke for; it was not merged."""
        first = self._context.registry.evaluations.of_merge(merge.id)
        if first is None or first.report is None:
            return None
        teacher = MergeNumbers(teacher_error=merge.numbers.teacher_error)
        verdict = acceptance(rule, teacher | numbers_of(first.report))
        return verdict.candidate if verdict.accepted else None

    async def _decide(
        self,
        merge: Merge,
        submission: Submission,
        verdict: Verdict,
        join: AcceptedJoin | None,
        *,
        may_learn: bool = False,
    ) -> bool:
        """Merge or reject as policy and judge say, or as the operator does where they ask.

        Returns True where the judge rejects the join and another may be learned (`may_learn`).
        """
        review = self._context.config.acceptance.review
        hopeless = not verdict.accepted and review == "never"
        if join is None or (hopeless and merge.state is not MergeState.REVIEWING):
            await self._reject(merge, submission, verdict.reason)
            return False
        try:
            merge, judged = await self._judge.judge(
                merge, submission, verdict, join, may_learn=may_learn
            )
        except (SchemaError, LimitError) as error:
            if may_learn:
                self._log.info("merge.goes_on_to_learn", merge=merge.id, reason=str(error))
                return True
            await self._reject(merge, submission, str(error))
            return False
        if verdict.accepted and not judged.accepted and may_learn:
            self._log.info("merge.goes_on_to_learn", merge=merge.id, reason=judged.reason)
            return True
        if judged.numbers.witnesses is not None:
            merge = await asyncio.to_thread(
                self._context.registry.merges.update, merge.id, numbers=judged.numbers
            )
        asked = review == "always" or judged.doubtful
        if not judged.accepted:
            asked = review != "never"
        if asked or merge.state is MergeState.REVIEWING:
            merge = await self._reviewed(merge, judged.reason)
        elif not judged.accepted:
            await self._reject(merge, submission, judged.reason)
            return False
        if not await self._rejected(merge, submission):
            failpoint("merge.inspected")
            await self._committer.commit(merge, submission, join, judged.inspection)
        return False

    async def _reject(self, merge: Merge, submission: Submission, reason: str) -> None:
        if not await self._rejected(merge, submission):
            await asyncio.to_thread(
                self._context.end, merge, submission.site, MergeState.REJECTED, reason
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
            waits = present.decision is None and present.state in OPEN_MERGES
            return None if waits else present

        return await wait_for(registry, merge.id, look)


def teacher_numbers(manifest: TeacherManifest, task: str) -> MergeNumbers:
    """Return a teacher's numbers at a task, as its manifest states them."""
    return MergeNumbers(
        teacher_error=manifest.metrics.get(f"error/{task}"),
        teacher_mean_iou=manifest.metrics.get(f"mean_iou/{task}"),
    )
