"""Evaluation requests, refined adapters and reports over the wire."""

from __future__ import annotations

import math
from typing import Any, Protocol

import pytest

from rootstock.common.errors import (
    ConflictError,
    IdentityError,
    LimitError,
    NotFoundError,
    RefusedError,
    RootstockError,
    SchemaError,
)
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import feature_shape
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.common.weights.safetensors_io import write
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationRequest
from rootstock.coordinator.service.messages import evaluation_report
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_server import Lab, LabMaker, Refinement, Running


class Asked(Protocol):
    """Brings a lab's teacher to an evaluation; gives the lab and the evaluation's id."""

    def __call__(self, site: str = "cat-lab", *, refine: bool = True) -> tuple[Lab, str]: ...


@pytest.fixture
def asked(coordinator: Running, lab: LabMaker) -> Asked:
    def ask(site: str = "cat-lab", *, refine: bool = True) -> tuple[Lab, str]:
        asked_lab = lab(site)
        registry = coordinator.registry
        receipt = asked_lab.ship(asked_lab.teacher("cat"))
        registry.submissions.set_state(receipt.submission_id, SubmissionState.ADMITTED)
        merge = registry.merges.create(
            receipt.submission_id, "cat", "classification", OperationKind.NEW_CATEGORY
        )
        registry.merges.advance(merge.id, MergeState.DISTILLING)
        registry.merges.advance(merge.id, MergeState.EVALUATING)
        plan = coordinator.context.plan
        request = EvaluationRequest(
            evaluation_id="evl-0001",
            merge_id=merge.id,
            manifest_digest=receipt.manifest_digest,
            task="classification",
            architecture=plan.architecture,
            task_module=plan.initial_task_modules["classification"],
            candidates={Candidate.NO_ADAPTER: None, Candidate.ZERO_SAMPLE: None},
            refinement_spec=AdapterSpec(in_channels=4, out_channels=4) if refine else None,
        )
        return asked_lab, registry.evaluations.request(site, request).id

    return ask


def results(**errors: float) -> list[pb.CandidateResult]:
    return [
        pb.CandidateResult(name=name, error=error, samples=100) for name, error in errors.items()
    ]


def calibrated(**numbers: float) -> list[pb.CandidateResult]:
    """Results of both candidates, one with a calibration."""
    calibration = pb.OutputCalibration(**{"scale": 2.0, "bias": -0.5, "error": 12.0, **numbers})
    both = results(no_adapter=50.0, zero_sample=30.0)
    both[1].calibration.CopyFrom(calibration)
    return both


def with_iou(value: float) -> list[pb.CandidateResult]:
    """Results of both candidates, one with a mean IoU."""
    both = results(no_adapter=50.0, zero_sample=30.0)
    both[1].mean_iou = value
    return both


def refined(lab: Lab, evaluation: str, channels: int | None = None) -> Refinement:
    """Make a real adapter as a lab would; `channels` lies about its width."""
    width = channels or feature_shape(lab.plan().architecture)[0]
    spec = AdapterSpec(in_channels=width, out_channels=width)
    path = lab.folder / "adapter.safetensors"
    entry = write(path, Adapter(spec).state_dict())
    manifest = RefinementManifest(
        site=lab.name, evaluation=evaluation, adapter=AdapterEntry(spec=spec, blob=entry)
    )
    return Refinement(manifest, {entry.digest: path})


def test_a_lab_refines_reports_and_is_believed_once(coordinator: Running, asked: Asked) -> None:
    lab, evaluation = asked()
    stream = lab.watch("a")
    request = next(event for event in stream if event.HasField("evaluation")).evaluation
    stream.cancel()
    assert request.evaluation_id == evaluation
    adapter = refined(lab, evaluation)
    report = pb.ReportEvaluationRequest(
        evaluation_id=evaluation,
        results=results(no_adapter=50.0, zero_sample=30.0),
        refinement_manifest_digest=adapter.manifest.content_digest(),
        refined_error=6.0,
        refinement_seconds=2.5,
        refinement_steps=300,
    )
    with pytest.raises(ConflictError, match="has no receipt; upload it, then report"):
        lab.call("ReportEvaluation", report)
    receipt = lab.ship(adapter)
    assert receipt.submission_id == "ref-0001"
    assert lab.call("ReportEvaluation", report).first
    kept = coordinator.registry.evaluations.get(evaluation).report
    assert kept == evaluation_report(report)
    report.refined_error = 1.0
    assert not lab.call("ReportEvaluation", report).first
    assert coordinator.registry.evaluations.get(evaluation).report == kept
    # The receipt stands, though the question is closed.
    again = lab.begin(adapter.manifest).receipt
    assert (again.submission_id, again.received_at, again.signature) == (
        receipt.submission_id,
        receipt.received_at,
        receipt.signature,
    )
    found = coordinator.registry.uploads.refinement(adapter.manifest.content_digest())
    assert found is not None
    assert (found.id, found.evaluation_id) == ("ref-0001", evaluation)


def test_a_failure_may_leave_results_out(asked: Asked) -> None:
    lab, evaluation = asked()
    report = pb.ReportEvaluationRequest(evaluation_id=evaluation, failure="images unreadable")
    assert lab.call("ReportEvaluation", report).first


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"results": results(no_adapter=50.0)}, SchemaError, "no result for .*zero_sample"),
        (
            {"results": results(no_adapter=50.0, zero_sample=30.0, magic=0.0)},
            SchemaError,
            "magic",
        ),
        (
            {"results": results(no_adapter=5.0, zero_sample=5.0) + results(no_adapter=1.0)},
            SchemaError,
            "send one for each",
        ),
        ({"results": results(no_adapter=100.5, zero_sample=3.0)}, LimitError, "100.5"),
        ({"results": results(no_adapter=math.nan, zero_sample=3.0)}, LimitError, "nan"),
        ({"results": results(no_adapter=-1.0, zero_sample=3.0)}, LimitError, "-1"),
        ({"results": calibrated(scale=0.0)}, LimitError, "scale of zero_sample is 0"),
        ({"results": calibrated(scale=1e-300)}, LimitError, "scale of zero_sample is 1e-300"),
        ({"results": calibrated(scale=-1.0)}, LimitError, "scale of zero_sample is -1"),
        ({"results": calibrated(scale=1.1e6)}, LimitError, "scale of zero_sample"),
        ({"results": calibrated(scale=math.nan)}, LimitError, "scale of zero_sample is nan"),
        ({"results": calibrated(bias=-1.1e6)}, LimitError, "bias of zero_sample"),
        ({"results": calibrated(bias=math.nan)}, LimitError, "bias of zero_sample is nan"),
        ({"results": calibrated(error=100.5)}, LimitError, "calibrated error of zero_sample"),
        (
            {"refined_calibration": pb.OutputCalibration(scale=math.inf)},
            LimitError,
            "scale of refined is inf",
        ),
        ({"results": with_iou(100.5)}, LimitError, "mean IoU of zero_sample is 100.5"),
        ({"results": with_iou(math.nan)}, LimitError, "mean IoU of zero_sample is nan"),
        ({"results": calibrated(mean_iou=-1.0)}, LimitError, "calibrated mean IoU of zero_sample"),
        ({"refined_mean_iou": 101.0}, LimitError, "refined_mean_iou is 101"),
        ({"refined_error": math.inf}, LimitError, "refined_error"),
        ({"refinement_seconds": -1.0}, LimitError, "refinement_seconds"),
        ({"refinement_steps": 1 << 63}, LimitError, "refinement_steps"),
        ({"failure": "x" * 2001}, LimitError, "2001 characters"),
        ({"refinement_manifest_digest": "0" * 64}, ConflictError, "no receipt"),
        ({"evaluation_id": "evl-0009"}, NotFoundError, "evl-0009"),
    ],
)
def test_numbers_are_held_against_what_was_asked(
    coordinator: Running,
    asked: Asked,
    change: dict[str, Any],
    error: type[RootstockError],
    message: str,
) -> None:
    lab, evaluation = asked()
    good: dict[str, Any] = {
        "evaluation_id": evaluation,
        "results": results(no_adapter=50.0, zero_sample=30.0),
    }
    with pytest.raises(error, match=message):
        lab.call("ReportEvaluation", pb.ReportEvaluationRequest(**{**good, **change}))
    assert coordinator.registry.evaluations.get(evaluation).report is None
    assert lab.call("ReportEvaluation", pb.ReportEvaluationRequest(**good)).first


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"scale": 1e6, "bias": -1e6, "error": 100.0, "mean_iou": 100.0},
        {"scale": 1e-6, "bias": 0.0, "mean_iou": 0.0},
    ],
)
def test_a_calibration_within_its_caps_is_kept(
    coordinator: Running, asked: Asked, numbers: dict[str, float]
) -> None:
    lab, evaluation = asked()
    report = pb.ReportEvaluationRequest(evaluation_id=evaluation, results=calibrated(**numbers))
    assert lab.call("ReportEvaluation", report).first
    kept = coordinator.registry.evaluations.get(evaluation).report
    assert kept == evaluation_report(report)


def test_other_labs_do_not_answer(asked: Asked, lab: LabMaker) -> None:
    _, evaluation = asked("cat-lab")
    dog = lab("dog-lab")
    report = pb.ReportEvaluationRequest(
        evaluation_id=evaluation, results=results(no_adapter=0.0, zero_sample=0.0)
    )
    with pytest.raises(IdentityError, match="asked of another site than 'dog-lab'"):
        dog.call("ReportEvaluation", report)
    with pytest.raises(IdentityError):
        dog.begin(refined(dog, evaluation).manifest)


def test_a_refinement_answers_an_open_request(asked: Asked) -> None:
    lab, evaluation = asked(refine=False)
    with pytest.raises(ConflictError, match="asks for no refined adapter"):
        lab.begin(refined(lab, evaluation).manifest)
    with pytest.raises(NotFoundError, match="evl-0009"):
        lab.begin(refined(lab, "evl-0009").manifest)


def test_a_refined_adapter_fits_the_net(asked: Asked) -> None:
    lab, evaluation = asked()
    with pytest.raises(RefusedError, match="adapter"):
        lab.begin(refined(lab, evaluation, channels=3).manifest)
    report = pb.ReportEvaluationRequest(
        evaluation_id=evaluation, results=results(no_adapter=50.0, zero_sample=30.0)
    )
    lab.call("ReportEvaluation", report)
    with pytest.raises(ConflictError, match="has its report already"):
        lab.begin(refined(lab, evaluation).manifest)
