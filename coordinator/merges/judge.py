"""Judges a join that a lab praises by what others see of it, before it may be committed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rootstock.common.nets.graph import NetTree
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth import witnesses as rules
from rootstock.coordinator.growth.acceptance import Verdict, doubts, own_say
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.inspection import Inspection, inspection_job
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.commit import next_tree
from rootstock.coordinator.merges.result import AcceptedJoin, OperatorJoin
from rootstock.coordinator.merges.samples import judging_samples
from rootstock.coordinator.merges.witnesses import Testimony, testimony
from rootstock.coordinator.paths import StatePaths, job_area
from rootstock.coordinator.registry import Merge, MergeState, Submission


@dataclass(frozen=True)
class Judged:
    """What a merge's end rests on."""

    inspection: Inspection
    accepted: bool
    """Whether the policy lets the join in."""
    doubtful: bool
    """Whether the operator is asked all the same."""
    reason: str
    numbers: MergeNumbers = field(default_factory=MergeNumbers)
    """What the witnesses have said."""


class Judge:
    """Inspects joins, and weighs the operator's samples and the witnesses against their labs."""

    def __init__(self, context: CoordinatorContext, runner: JobRunner) -> None:
        self._context = context
        self._runner = runner
        self._paths = StatePaths(context.config)

    async def judge(
        self,
        merge: Merge,
        submission: Submission,
        verdict: Verdict,
        join: AcceptedJoin,
        *,
        may_learn: bool = False,
    ) -> tuple[Merge, Judged]:
        """Weigh a join; SchemaError or LimitError if it fails a check of `check_join`.

        `may_learn`: whether a better one may be learned if this is not accepted. Witnesses are
        asked where the rest has nothing against it, and the operator is not asked already: it is
        other labs' time.
        """
        tree = await asyncio.to_thread(next_tree, self._context, merge, submission, join)
        merge, inspection = await self._inspected(merge, submission, join, tree)
        found: list[str] = []
        objection, numbers = None, MergeNumbers()
        if not isinstance(join.result, OperatorJoin):
            objection = own_say(self._context.config.acceptance, merge.task, merge.numbers)
            found = await asyncio.to_thread(self._doubts, merge, submission)
        asks = not merge.operation.is_direct and merge.state is not MergeState.REVIEWING
        if verdict.accepted and objection is None and asks:
            turn = join.result.turn if isinstance(join.result, JobResult) else 1
            heard = await testimony(
                self._context, merge, submission.site, join.candidate, tree, turn
            )
            policy, numbers = self._context.config.witnesses, numbers_of(heard)
            error = merge.numbers.error_of(join.candidate)
            objection = rules.objection(policy, heard.shares, error, may_learn=may_learn)
            if objection is None:
                doubt = rules.doubt(policy, heard.asked, heard.shares, error)
                found += [] if doubt is None else [doubt]
        reasons = [*found, objection or verdict.reason]
        accepted = verdict.accepted and objection is None
        return merge, Judged(inspection, accepted, bool(found), "; ".join(reasons), numbers)

    async def _inspected(
        self, merge: Merge, submission: Submission, join: AcceptedJoin, tree: NetTree
    ) -> tuple[Merge, Inspection]:
        """Run a join on synthetic images, and on those of the operator's that judge."""
        own = None
        if not isinstance(join.result, OperatorJoin):
            own = await asyncio.to_thread(self._own, merge, submission)
        try:
            inspection = await self._runner.inspect(inspection_job(merge, tree, self._paths, own))
        finally:
            await asyncio.to_thread(self._context.store.drop, job_area(merge.id))
        numbers = MergeNumbers()
        if own is not None:
            count = float(own.tensors["labels"].shape[0])
            numbers = MergeNumbers(own_error=inspection.own_error, judged_on=count)
        merge = await asyncio.to_thread(
            self._context.registry.merges.update,
            merge.id,
            inspection=inspection.model_dump(mode="json"),
            numbers=numbers,
        )
        return merge, inspection

    def _own(self, merge: Merge, submission: Submission) -> BlobEntry | None:
        task = self._context.plan.task(merge.task)
        if task is None:
            return None
        return judging_samples(self._context, merge, self._context.teacher(submission), task)

    def _doubts(self, merge: Merge, submission: Submission) -> list[str]:
        """Return why the operator is to look at a merge of a lab's."""
        registry, site = self._context.registry, submission.site
        reported = None
        if not merge.operation.is_direct:
            reports = [each.report for each in registry.evaluations.of_merges([merge.id])]
            counts = [result.samples for each in reports if each for result in each.results]
            reported = float(min(counts, default=0))
        return doubts(
            self._context.config.acceptance,
            first=None if registry.merges.has_merged(site) else site,
            stated=self._context.teacher(submission).metrics.get("samples/validation"),
            reported=reported,
        )


def numbers_of(heard: Testimony) -> MergeNumbers:
    """Return what a merge's record has of its witnesses."""
    if not heard.asked:
        return MergeNumbers()
    most = max((share.yes for share in heard.shares), default=None)
    return MergeNumbers(witnesses=float(len(heard.shares)), most_yes=most)
