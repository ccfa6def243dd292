"""What others see of a join that its lab praises: the operator, his samples, other labs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rootstock.coordinator.config import SamplesConfig, WitnessesConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs import inspection
from rootstock.coordinator.registry import Evaluation, Merge, MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport, ReportedRest
from rootstock.coordinator.service.messages import evaluation_report
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import SITE_KEY, evaluating, merge_runner, with_policy

GENEROUS = {"max_error": 100.0, "max_above_teacher": 100.0}


def reported(
    context: CoordinatorContext,
    merge: Merge,
    samples: int = 40,
    calibration: pb.OutputCalibration | None = None,
) -> None:
    """Report that all candidates are perfect."""
    evaluation = context.registry.evaluations.of_merge(merge.id)
    assert evaluation is not None
    results = [
        pb.CandidateResult(name=name, error=0.0, samples=samples, calibration=calibration)
        for name in evaluation.request.candidates
    ]
    answer = pb.ReportEvaluationRequest(evaluation_id=evaluation.id, results=results)
    context.registry.evaluations.report(evaluation.id, evaluation_report(answer))


def carried(
    context: CoordinatorContext,
    merge: Merge,
    ends: bool = True,
    answer: Callable[[], object] = list,
) -> Merge:
    """Carry a merge to its end, or until it waits for the operator; meanwhile others answer."""

    async def run() -> None:
        work = asyncio.create_task(merge_runner(context).carry(merge.id))
        async with asyncio.timeout(60):
            while not work.done():
                await asyncio.sleep(0.01)
                await asyncio.to_thread(answer)
                state = context.registry.merges.get(merge.id).state
                if state is MergeState.REVIEWING and not ends:
                    break
        work.cancel()
        await asyncio.wait({work})

    asyncio.run(run())
    return context.registry.merges.get(merge.id)


def founding(context: CoordinatorContext, samples: float | None = 40.0) -> Merge:
    manifest = teacher(context, "cat-lab", "cat")
    if samples is not None:
        metrics = manifest.metrics | {"samples/validation": samples}
        manifest = manifest.model_copy(update={"metrics": metrics})
    submission = receive(context, manifest, SITE_KEY)
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    return context.registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)


def test_a_founding_waits_for_the_operator(context: CoordinatorContext) -> None:
    careful = with_policy(context, first="review")
    merge = carried(careful, founding(context), ends=False)
    assert merge.state is MergeState.REVIEWING
    assert merge.reason.startswith("review: nothing of cat-lab was merged yet")
    context.registry.merges.decide(merge.id, "approve", "I know them")
    assert carried(careful, merge).state is MergeState.MERGED


def test_a_lab_s_first_merge_waits_and_its_second_follows_the_rule(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    careful = with_policy(context, first="review", **GENEROUS)
    merge = carried(careful, merge, ends=False)
    assert merge.state is MergeState.REVIEWING
    assert "nothing of dog-lab" in merge.reason
    # cat-lab has founded the net: it is known.
    assert context.registry.merges.has_merged("cat-lab")
    assert not context.registry.merges.has_merged("dog-lab")


@pytest.mark.parametrize(("samples", "waits"), [(None, True), (19.0, True), (20.0, False)])
def test_numbers_of_few_images_wait(
    context: CoordinatorContext, samples: float | None, waits: bool
) -> None:
    strict = with_policy(context, min_samples=20)
    merge = carried(strict, founding(context, samples), ends=False)
    assert merge.state is (MergeState.REVIEWING if waits else MergeState.MERGED)
    assert ("at least 20 are wanted (acceptance.min_samples)" in merge.reason) == waits


def test_a_calibration_that_makes_every_picture_the_category_is_rejected(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge, calibration=pb.OutputCalibration(scale=1e-6, bias=1e6, error=0.0))
    merge = carried(with_policy(context, **GENEROUS), merge)
    assert merge.state is MergeState.REJECTED
    assert merge.reason.startswith("calibration: y ↦ 1e-06 · y + 1e+06 says yes above y = -1e+12")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, np.linalg.LinAlgError])
def test_a_figure_that_cannot_be_drawn_costs_the_figure(
    context: CoordinatorContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def fails(*_: object) -> None:
        raise error("svd did not converge")

    monkeypatch.setattr(inspection, "feature_spaces", fails)
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    merge = carried(with_policy(context, **GENEROUS), merge)
    assert merge.state is MergeState.MERGED
    assert merge.inspection is not None
    assert merge.inspection["features"] is None
    assert merge.inspection["no_features"] == "svd did not converge"


# -- witnesses -----------------------------------------------------------------------------------


def with_witnesses(context: CoordinatorContext, **witnesses: object) -> CoordinatorContext:
    policy = with_policy(context, **GENEROUS)
    config = policy.config.model_copy(
        update={"witnesses": WitnessesConfig.model_validate(witnesses)}
    )
    return replace(policy, config=config)


def questions(context: CoordinatorContext, merge: Merge) -> list[Evaluation]:
    asked = context.registry.evaluations.of_merges([merge.id])
    return [each for each in asked if each.request.rest is not None]


def says(
    context: CoordinatorContext, merge: Merge, yes: float | None, samples: int = 50
) -> Callable[[], None]:
    """Have every witness answer; None: that it cannot."""

    def answer() -> None:
        for question in questions(context, merge):
            report = EvaluationReport(
                evaluation_id=question.id,
                rest=None if yes is None else ReportedRest(yes=yes, samples=samples),
                failure="" if yes is not None else "no witness",
            )
            context.registry.evaluations.report(question.id, report)

    return answer


def test_another_lab_is_asked_and_content_with_the_join(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    merge = carried(with_witnesses(context), merge, answer=says(context, merge, 20.0))
    assert merge.state is MergeState.MERGED
    assert (merge.numbers.witnesses, merge.numbers.most_yes) == (1.0, 20.0)
    (question,) = questions(context, merge)
    assert question.site == "cat-lab"  # the only other one
    rest = question.request.rest
    assert rest is not None
    assert rest.category == "dog"
    assert {rest.category_module.digest} < question.request.digests()
    record = context.net.commit(2).merge
    assert record["witnesses/most_yes"] == 20.0


def test_a_join_that_says_yes_to_everything_is_rejected_by_a_witness(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    merge = carried(with_witnesses(context), merge, answer=says(context, merge, 96.0))
    assert merge.state is MergeState.REJECTED
    assert merge.reason.startswith("witnesses: another lab has the join say yes to 96.0%")


@pytest.mark.parametrize("unsure", ["review", "rule"])
def test_a_share_that_may_be_chance_is_a_doubt_and_no_objection(
    context: CoordinatorContext, tmp_path: Path, unsure: str
) -> None:
    """11 of 53 images: 20.8%, and the join may well say yes to fewer."""
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    policy, waits = with_witnesses(context, unsure=unsure), unsure == "review"
    answer = says(context, merge, 100 * 11 / 53, 53)
    merge = carried(policy, merge, ends=not waits, answer=answer)
    assert merge.state is (MergeState.REVIEWING if waits else MergeState.MERGED)
    assert ("20.8% of 53 images" in merge.reason) == waits


@pytest.mark.parametrize(("yes", "samples"), [(None, 0), (0.0, 3)])
def test_a_merge_waits_for_the_operator_where_no_witness_s_answer_counts(
    context: CoordinatorContext, tmp_path: Path, yes: float | None, samples: int
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    policy = with_witnesses(context)
    acceptance = policy.config.acceptance.model_copy(update={"min_samples": 4})
    strict = replace(policy, config=policy.config.model_copy(update={"acceptance": acceptance}))
    merge = carried(strict, merge, ends=False, answer=says(context, merge, yes, samples))
    assert merge.state is MergeState.REVIEWING
    assert (
        "witnesses: of 1 labs that were asked none has given an answer that counts" in merge.reason
    )


def test_a_silent_witness_holds_nobody_up_for_ever(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    policy = with_witnesses(context, patience_days=1e-9, unsure="rule")
    merge = carried(policy, merge)
    assert merge.state is MergeState.MERGED
    assert (merge.numbers.witnesses, merge.numbers.most_yes) == (0.0, None)


# -- the operator's own samples ------------------------------------------------------------------


def pictures(folder: Path, category: str) -> None:
    """Draw 60 noise images of each side."""
    draw = np.random.default_rng(0)
    for side in ("yes", "no"):
        place = folder / category / side
        place.mkdir(parents=True)
        for number in range(60):
            pixels_HWC = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels_HWC).save(place / f"{number}.png")


def test_the_operator_s_samples_overrule_a_lab_that_praises_itself(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """An untrained net is right about noise half of the time; its lab says always."""
    pictures(tmp_path / "own", "dog")
    merge = evaluating(context, tmp_path)
    reported(context, merge)
    policy = with_policy(context, max_error=30.0)
    config = policy.config.model_copy(update={"samples": SamplesConfig(folder=tmp_path / "own")})
    ended = carried(replace(policy, config=config), merge)
    assert ended.state is MergeState.REJECTED
    assert "of the operator's own samples the join has an error of" in ended.reason
    assert ended.numbers.own_error is not None
    assert ended.numbers.own_error > 30.0
    assert ended.numbers.judged_on is not None
    assert 20 <= ended.numbers.judged_on <= 60
    assert list(context.store.areas("jobs")) == []
