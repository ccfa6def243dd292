"""The joining ladder: no adapter, the closed form, and only then something that is learned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace

import pytest

from rootstock.common.errors import TransplantError
from rootstock.common.protocol import evaluation_id, witness_id
from rootstock.coordinator.config import DistillationConfig, WitnessesConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.jobs.runner import OnJobProgress
from rootstock.coordinator.merges.evaluation import numbers_of
from rootstock.coordinator.merges.result import stored_result
from rootstock.coordinator.net.objects import read_commit
from rootstock.coordinator.registry import Evaluation, Merge, MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport, ReportedRest
from rootstock.coordinator.service.messages import evaluation_report, evaluation_request
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_context import receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import SITE_KEY, merge_runner, with_policy

LEARNING = DistillationConfig(zero_sample_method="back-distill", steps=2, draws=4)


class Here(InThisProcess):
    """Does jobs in this process, and keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[TransplantJob] = []

    async def run(
        self, job: TransplantJob, on_progress: OnJobProgress = lambda _: None
    ) -> JobResult:
        self.jobs.append(job)
        return await super().run(job, on_progress)


class NoClosedForm(Here):
    """The maths of the closed form has no answer."""

    async def run(
        self, job: TransplantJob, on_progress: OnJobProgress = lambda _: None
    ) -> JobResult:
        if job.settings.zero_sample_method == "closed-form":
            raise TransplantError("no least squares here")
        return await super().run(job, on_progress)


def laddered(context: CoordinatorContext, **policy: object) -> CoordinatorContext:
    found = with_policy(context, take="first", max_above_teacher=5.0, **policy)
    return learning(found)


def learning(context: CoordinatorContext) -> CoordinatorContext:
    config = context.config.model_copy(update={"distillation": LEARNING})
    return replace(context, config=config)


def queued(context: CoordinatorContext) -> Merge:
    """Found the net with cat, and queue dog."""
    merging = merge_runner(context, Here())
    for site, category in (("cat-lab", "cat"), ("dog-lab", "dog")):
        submission = receive(context, teacher(context, site, category), SITE_KEY)
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        operation = OperationKind.FOUND if category == "cat" else OperationKind.NEW_CATEGORY
        merge = context.registry.merges.create(submission, category, "classification", operation)
        if category == "cat":
            asyncio.run(merging.carry(merge.id))
    return merge


def carried(
    context: CoordinatorContext,
    merge: Merge,
    runner: Here,
    *answers: Mapping[str, float],
    meanwhile: Callable[[], Coroutine[None, None, None]] | None = None,
) -> tuple[Merge, list[pb.EvaluationRequest]]:
    """Carry a merge; the lab answers each question with the errors that are given for it."""
    asked = []

    async def both() -> None:
        merging = merge_runner(context, runner)
        carrying = asyncio.create_task(merging.carry(merge.id))
        beside = asyncio.create_task(meanwhile()) if meanwhile is not None else None
        for turn, errors in enumerate(answers, start=1):
            while (found := context.registry.evaluations.of_merge(merge.id, turn)) is None:
                await asyncio.sleep(0.01)
                if carrying.done():
                    carrying.result()
                    raise AssertionError(context.registry.merges.get(merge.id).reason)
            asked.append(evaluation_request(found.request))
            report = pb.ReportEvaluationRequest(
                evaluation_id=found.id,
                results=[
                    pb.CandidateResult(name=each.name, error=errors[each.name], samples=10)
                    for each in asked[-1].candidates
                ],
            )
            await asyncio.to_thread(
                context.registry.evaluations.report, found.id, evaluation_report(report)
            )
        await carrying
        if beside is not None:
            await beside

    asyncio.run(asyncio.wait_for(both(), 60))
    return context.registry.merges.get(merge.id), asked


def names(request: pb.EvaluationRequest) -> list[str]:
    return [candidate.name for candidate in request.candidates]


def test_a_compatible_module_is_joined_as_it_is_and_nothing_is_learned(
    context: CoordinatorContext,
) -> None:
    context, runner = laddered(context), Here()
    merge = queued(context)
    merge, (asked,) = carried(context, merge, runner, {"no_adapter": 8.0, "closed_form": 1.0})
    assert merge.state is MergeState.MERGED
    assert [job.settings.zero_sample_method for job in runner.jobs] == ["closed-form"]
    assert names(asked) == ["no_adapter", "closed_form"]
    assert not asked.refine
    tree = context.tree()
    assert tree is not None
    assert tree.edge("dog", "classification").adapter is None
    head = context.head()
    assert head is not None
    record = read_commit(context.store, head.digest).merge
    assert record["candidate"] == "no_adapter"
    assert (record["no_adapter_error"], record["closed_form_error"]) == (8.0, 1.0)
    assert "zero_sample_method" not in record


def test_the_closed_form_is_taken_where_no_adapter_will_not_do(context: CoordinatorContext) -> None:
    context, runner = laddered(context), Here()
    merge = queued(context)
    merge, _ = carried(context, merge, runner, {"no_adapter": 30.0, "closed_form": 9.0})
    tree = context.tree()
    assert tree is not None
    edge = tree.edge("dog", "classification")
    assert edge.adapter is not None
    result = stored_result(merge)
    assert isinstance(result, JobResult)
    assert edge.adapter == result.closed_form
    assert edge.error == 9.0
    assert merge.candidate == "closed_form"
    assert len(runner.jobs) == 1


def test_only_if_neither_will_do_an_adapter_is_learned(context: CoordinatorContext) -> None:
    context, runner = laddered(context), Here()
    merge = queued(context)
    merge, (first, second) = carried(
        context,
        merge,
        runner,
        {"no_adapter": 30.0, "closed_form": 20.0},
        {"no_adapter": 30.0, "closed_form": 20.0, "zero_sample": 6.0},
    )
    assert [job.settings.zero_sample_method for job in runner.jobs] == [
        "closed-form",
        "back-distill",
    ]
    assert (first.evaluation_id, second.evaluation_id) == ("evl-0002", "evl-0002-2")
    assert names(second) == ["no_adapter", "closed_form", "zero_sample"]
    assert (first.refine, second.refine) == (False, True)
    assert merge.state is MergeState.MERGED
    assert merge.candidate == "zero_sample"
    assert {"seconds/closed-form", "seconds/zero-sample"} <= merge.numbers.flat().keys()


@pytest.mark.parametrize(("then", "ends"), [(0.0, MergeState.MERGED), (90.0, MergeState.REJECTED)])
def test_where_a_witness_objects_to_what_needs_no_learning_one_is_learned(
    context: CoordinatorContext, then: float, ends: MergeState
) -> None:
    """The lab's numbers speak for no adapter both times: what was objected to is not asked again.

    `then` is the witness's share of yes about what was learned.
    """
    config = laddered(context).config.model_copy(update={"witnesses": WitnessesConfig()})
    context, runner = replace(laddered(context), config=config), Here()
    merge = queued(context)
    witness = [witness_id(merge.id, 1), witness_id(merge.id, 1, turn=2)]

    async def testify() -> None:
        for name, yes in zip(witness, (90.0, then), strict=True):
            while not (found := [each for each in questions() if each.id == name]):
                await asyncio.sleep(0.01)
            rest = ReportedRest(yes=yes, samples=50)
            report = EvaluationReport(evaluation_id=found[0].id, rest=rest)
            context.registry.evaluations.report(name, report)

    def questions() -> list[Evaluation]:
        return context.registry.evaluations.of_merges([merge.id])

    errors = {"no_adapter": 8.0, "closed_form": 9.0}
    merge, (_, second) = carried(
        context, merge, runner, errors, {**errors, "zero_sample": 6.0}, meanwhile=testify
    )
    assert names(second) == ["no_adapter", "closed_form", "zero_sample"]
    assert merge.state is ends
    assert merge.numbers.most_yes == then
    asked = [each.request.candidates for each in questions() if each.id in witness]
    assert [list(candidates) for candidates in asked] == [["no_adapter"], ["zero_sample"]]
    if ends is MergeState.MERGED:
        assert merge.candidate == "zero_sample"


def test_a_crash_between_the_rungs_is_no_matter(context: CoordinatorContext) -> None:
    """Whatever state a coordinator finds, it asks no question twice."""
    context, runner = laddered(context), Here()
    merge = queued(context)
    merging = merge_runner(context, runner)

    async def cut(state: MergeState, turn: int) -> None:
        carrying = asyncio.create_task(merging.carry(merge.id))
        while (
            context.registry.merges.get(merge.id).state is not state
            or context.registry.evaluations.of_merge(merge.id, turn) is None
        ):
            await asyncio.sleep(0.01)
        carrying.cancel()
        await asyncio.wait({carrying})

    asyncio.run(asyncio.wait_for(cut(MergeState.EVALUATING, 1), 60))
    ended, asked = carried(
        context,
        merge,
        runner,
        {"no_adapter": 30.0, "closed_form": 20.0},
        {"no_adapter": 30.0, "closed_form": 20.0, "zero_sample": 90.0},
    )
    assert [each.evaluation_id for each in asked] == [
        evaluation_id(merge.id),
        evaluation_id(merge.id, 2),
    ]
    assert len(runner.jobs) == 2
    assert ended.state is MergeState.REJECTED
    assert "closed_form has an error of 20.0%" in ended.reason


def test_maths_that_has_no_answer_leaves_no_adapter_to_ask_about(
    context: CoordinatorContext,
) -> None:
    context, runner = laddered(context), NoClosedForm()
    merge = queued(context)
    merge, (first, second) = carried(
        context, merge, runner, {"no_adapter": 30.0}, {"no_adapter": 30.0, "zero_sample": 7.0}
    )
    assert (names(first), names(second)) == (["no_adapter"], ["no_adapter", "zero_sample"])
    assert merge.candidate == "zero_sample"


def test_the_best_is_taken_unless_told_otherwise(context: CoordinatorContext) -> None:
    context, runner = learning(context), Here()
    merge = queued(context)
    merge, (asked,) = carried(context, merge, runner, {"no_adapter": 8.0, "zero_sample": 6.0})
    assert names(asked) == ["no_adapter", "zero_sample"]
    assert merge.candidate == "zero_sample"
    assert len(runner.jobs) == 1


@pytest.mark.parametrize("name", ["closed_form", "zero_sample"])
def test_numbers_of_a_rung_are_named_as_the_others_are(name: str) -> None:
    told = pb.CandidateResult(name=name, error=3.0)
    report = pb.ReportEvaluationRequest(results=[told])
    assert numbers_of(evaluation_report(report)).flat() == {
        f"{name}_error": 3.0,
        f"{name}_uncalibrated_error": 3.0,
    }
