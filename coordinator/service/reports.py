"""What a lab answers about candidates: checked against what it was asked."""

from __future__ import annotations

from rootstock.common.errors import (
    ConflictError,
    IdentityError,
    LimitError,
    NotFoundError,
    SchemaError,
)
from rootstock.common.nets.calibration import MAX_CALIBRATION, MIN_SCALE
from rootstock.common.weights.manifest import RefinementManifest
from rootstock.coordinator.registry import Evaluation, Registry
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    CandidateResult,
    EvaluationRequest,
    OutputCalibration,
    ReportEvaluationRequest,
)

MAX_SAMPLES = 10**9
MAX_STEPS = 10**9
MAX_SECONDS = 10.0**8
"""Three years: a longer refinement is a clock gone wrong."""

MAX_FAILURE = 2000
"""Characters of a reason."""


def check_refinement(manifest: RefinementManifest, registry: Registry) -> None:
    """Hold a refined adapter's manifest against the request that it answers.

    Raises
    ------
    NotFoundError, IdentityError
        If there is no such request, or it is another site's.
    ConflictError
        If no refinement was asked for, or the request has its report already.
    """
    evaluation = _owned(registry, manifest.site, manifest.evaluation)
    if not EvaluationRequest.FromString(evaluation.request).refine:
        raise ConflictError(
            f"evaluation '{evaluation.id}' asks for no refined adapter; report the candidates only"
        )
    if evaluation.report is not None:
        raise ConflictError(
            f"evaluation '{evaluation.id}' has its report already; nothing is left to send for it"
        )


def take_report(registry: Registry, site: str, report: ReportEvaluationRequest) -> bool:
    """Keep a lab's report; True if it is the first for its request.

    Raises
    ------
    NotFoundError, IdentityError
        If there is no such request, or it is another site's.
    SchemaError
        If a result is of no candidate that was asked about, or twice; or one is missing.
    LimitError
        If a number is outside its range.
    ConflictError
        If it names a refined adapter that has not been received.
    """
    evaluation = _owned(registry, site, report.evaluation_id)
    if evaluation.report is None:
        request = EvaluationRequest.FromString(evaluation.request)
        _check_results(request, report)
        _check_refined(registry, evaluation, report)
    return registry.evaluations.report(evaluation.id, report.SerializeToString(deterministic=True))


def _owned(registry: Registry, site: str, evaluation_id: str) -> Evaluation:
    evaluation = registry.evaluations.get(evaluation_id)
    if evaluation.site != site:
        raise IdentityError(
            f"evaluation '{evaluation_id}' was asked of another site than '{site}'; answer "
            "the requests of your own watch stream"
        )
    return evaluation


def _check_results(request: EvaluationRequest, report: ReportEvaluationRequest) -> None:
    if len(report.failure) > MAX_FAILURE:
        raise LimitError(
            f"report: failure has {len(report.failure)} characters, the limit is {MAX_FAILURE}"
        )
    asked = [candidate.name for candidate in request.candidates]
    given = [result.name for result in report.results]
    if len(set(given)) != len(given) or not set(given) <= set(asked):
        raise SchemaError(
            f"report: results for {given}, asked were {asked}; send one for each of these"
        )
    if not report.failure and set(given) != set(asked):
        raise SchemaError(
            f"report: no result for {sorted(set(asked) - set(given))}; evaluate it, or say in "
            "`failure` why it could not be"
        )
    for result in report.results:
        _check_result(result)


def _check_result(result: CandidateResult) -> None:
    _within(f"error of {result.name}", result.error, 100.0)
    _within(f"mean IoU of {result.name}", result.mean_iou, 100.0)
    _within(f"samples of {result.name}", result.samples, MAX_SAMPLES)
    if result.HasField("calibration"):
        _check_calibration(result.name, result.calibration)


def _check_calibration(name: str, calibration: OutputCalibration) -> None:
    _within(f"calibrated error of {name}", calibration.error, 100.0)
    _within(f"calibrated mean IoU of {name}", calibration.mean_iou, 100.0)
    _within(f"scale of {name}", calibration.scale, MAX_CALIBRATION, lowest=MIN_SCALE)
    _within(f"bias of {name}", calibration.bias, MAX_CALIBRATION, lowest=-MAX_CALIBRATION)


def _check_refined(
    registry: Registry, evaluation: Evaluation, report: ReportEvaluationRequest
) -> None:
    _within("refined_error", report.refined_error, 100.0)
    _within("refined_mean_iou", report.refined_mean_iou, 100.0)
    _within("refinement_seconds", report.refinement_seconds, MAX_SECONDS)
    _within("refinement_steps", report.refinement_steps, MAX_STEPS)
    if report.HasField("refined_calibration"):
        _check_calibration("refined", report.refined_calibration)
    digest = report.refinement_manifest_digest
    if not digest:
        return
    upload = registry.uploads.refinement(digest)
    if upload is None or upload.site != evaluation.site:
        raise ConflictError(
            f"report: the refined adapter {digest[:80]!r} has no receipt; upload it, then report"
        )
    if upload.evaluation_id != evaluation.id:
        raise NotFoundError(
            f"report: the adapter of manifest {digest} was refined for evaluation "
            f"'{upload.evaluation_id}', not for '{evaluation.id}'; name the one for this request"
        )


def _within(name: str, value: float, highest: float, lowest: float = 0.0) -> None:
    if not lowest <= value <= highest:  # false for NaN, too
        raise LimitError(f"report: {name} is {value}; it must be from {lowest:g} to {highest:g}")
