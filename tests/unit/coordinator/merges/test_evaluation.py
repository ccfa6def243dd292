"""What a lab's report comes to: the merge's numbers, the edge's calibration, the next version."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rootstock.common.nets.calibration import Calibration
from rootstock.coordinator.config import EvaluationConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.recorder import gather
from rootstock.coordinator.merges.evaluation import numbers_of
from rootstock.coordinator.merges.runner import teacher_numbers
from rootstock.coordinator.net.objects import read_commit
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.registry import MergeState
from rootstock.coordinator.service.messages import evaluation_report
from rootstock.deploy.federation.tables import category_rows
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from tests.support.coordinator_context import teacher
from tests.support.merges import ZERO, evaluating, merge_runner, results


def test_an_old_agent_calibrates_nothing() -> None:
    report = pb.ReportEvaluationRequest(
        results=results(), refinement_manifest_digest="a" * 64, refined_error=3.0
    )
    numbers = numbers_of(evaluation_report(report))
    assert numbers.flat() == {
        "no_adapter_error": 50.0,
        "zero_sample_error": 38.0,
        "zero_sample_uncalibrated_error": 38.0,
        "refined_error": 3.0,
        "refined_uncalibrated_error": 3.0,
        "seconds/refinement": 0.0,
        "refinement_steps": 0.0,
    }
    assert {each.calibration for each in numbers.candidates.values()} == {None}


def test_numbers_tell_both_errors_and_the_baseline_stays() -> None:
    report = pb.ReportEvaluationRequest(
        results=results(
            no_adapter=pb.OutputCalibration(scale=2, bias=-1, error=31), zero_sample=ZERO
        ),
        refinement_manifest_digest="a" * 64,
        refined_error=3.0,
        refined_calibration=pb.OutputCalibration(scale=1.5, bias=0, error=2),
    )
    measured = numbers_of(evaluation_report(report))
    numbers = measured.flat()
    assert numbers["no_adapter_error"] == 50.0
    assert numbers["no_adapter_calibrated_error"] == 31.0
    assert (numbers["zero_sample_error"], numbers["zero_sample_uncalibrated_error"]) == (8.0, 38.0)
    assert (numbers["refined_error"], numbers["refined_uncalibrated_error"]) == (2.0, 3.0)
    assert (numbers["zero_sample_scale"], numbers["zero_sample_bias"]) == (0.5, 0.015625)
    assert measured.candidates[Candidate.REFINED].calibration == Calibration(scale=1.5)


def test_a_segmentation_tells_its_mean_iou_of_the_same_output() -> None:
    no_adapter, zero_sample = results(
        no_adapter=pb.OutputCalibration(scale=2, bias=-1, error=31, mean_iou=41),
        zero_sample=pb.OutputCalibration(scale=0.5, bias=1.5, error=8, mean_iou=70),
    )
    no_adapter.mean_iou, zero_sample.mean_iou = 30.0, 60.0
    report = pb.ReportEvaluationRequest(
        results=[no_adapter, zero_sample],
        refinement_manifest_digest="a" * 64,
        refined_error=3.0,
        refined_mean_iou=0.0,
    )
    sent = pb.ReportEvaluationRequest.FromString(report.SerializeToString())
    told = {
        key: value
        for key, value in numbers_of(evaluation_report(sent)).flat().items()
        if "mean_iou" in key
    }
    assert told == {
        "no_adapter_mean_iou": 30.0,  # as no_adapter_error, without the calibration
        "zero_sample_mean_iou": 70.0,
        "refined_mean_iou": 0.0,
    }


def test_a_teacher_s_numbers_are_those_of_the_task(context: CoordinatorContext) -> None:
    manifest = teacher(context, "cat-lab", "cat").model_copy(
        update={"metrics": {"error/a": 1.0, "error/b": 2.0, "mean_iou/b": 50.0}}
    )
    assert teacher_numbers(manifest, "a").flat() == {"teacher_error": 1.0}
    assert teacher_numbers(manifest, "b").flat() == {"teacher_error": 2.0, "teacher_mean_iou": 50.0}


@pytest.mark.parametrize(
    ("calibrations", "expected", "error"),
    [
        ({"zero_sample": ZERO}, Calibration(scale=0.5, bias=0.015625), 8.0),
        # Without it the same candidate is 20 points worse than the policy allows.
        ({}, None, None),
    ],
)
def test_the_accepted_candidate_s_calibration_goes_to_the_edge_and_the_record(
    context: CoordinatorContext,
    tmp_path: Path,
    calibrations: dict[str, pb.OutputCalibration],
    expected: Calibration | None,
    error: float | None,
) -> None:
    merge = evaluating(context, tmp_path)
    (evaluation,) = [context.registry.evaluations.of_merge(merge.id)]
    assert evaluation is not None
    report = pb.ReportEvaluationRequest(
        evaluation_id=evaluation.id, results=results(**calibrations)
    )
    context.registry.evaluations.report(evaluation.id, evaluation_report(report))
    runner = merge_runner(context)
    asyncio.run(runner.carry(merge.id))
    merge = context.registry.merges.get(merge.id)
    tree = context.tree()
    assert tree is not None
    if expected is None:
        assert merge.state is MergeState.REJECTED
        assert "38.0%" in merge.reason
        return
    edge = tree.edge("dog", "classification")
    assert (edge.calibration, edge.error) == (expected, error)
    assert tree.edge("cat", "classification").calibration.identity
    head = context.head()
    assert head is not None
    record = read_commit(context.store, head.digest).merge
    assert (record["calibration_scale"], record["calibration_bias"]) == (0.5, 0.015625)
    assert record["zero_sample_method"] == "closed-form"
    assert record["zero_sample_fallback"] == "dream: the dream did not converge"
    assert verify_version(context.net, 2, context.key.public_key) == []
    # History and the command line tell both errors.
    shown = gather(context.net, context.config, merge)
    assert shown.numbers["zero_sample_uncalibrated_error"] == 38.0
    assert shown.numbers["zero-sample/residual"] == 0.4
    assert shown.candidate == "zero_sample"
    assert [(join.category, join.error, join.teacher_error) for join in shown.earlier] == [
        ("cat", 5.0, 5.0)
    ]
    assert shown.parameters["distillation.dream.images"] == 96
    assert shown.parameters["zero_sample_fallback"] == record["zero_sample_fallback"]
    status = operator_pb2.MergeStatus(category="dog", numbers=merge.numbers.flat(), state="merged")
    (row,) = category_rows(operator_pb2.GetStatusResponse(merges=[status]))
    assert (row["no_adapter_error"], row["zero_sample_error"]) == (50.0, 8.0)
    assert row["zero_sample_uncalibrated_error"] == 38.0
    assert row["refined_error"] is row["refined_uncalibrated_error"] is None


def test_a_lab_that_does_not_answer_is_not_waited_for_for_ever(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    impatient = EvaluationConfig(patience_days=1e-9)
    config = context.config.model_copy(update={"evaluation": impatient})
    asyncio.run(merge_runner(replace(context, config=config)).carry(merge.id))
    ended = context.registry.merges.get(merge.id)
    assert ended.state is MergeState.FAILED
    assert "dog-lab has not answered evaluation evl-0002 for 1e-09 days" in ended.reason
    assert "ship its teacher net again" in ended.reason
