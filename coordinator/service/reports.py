"""A lab's report about candidates, checked against the request that it answers."""

from __future__ import annotations

from rootstock.common.errors import (
    ConflictError,
    IdentityError,
    LimitError,
    NotFoundError,
    SchemaError,
)
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.calibration import MAX_CALIBRATION, MIN_SCALE
from rootstock.common.weights.manifest import RefinementManifest
from rootstock.coordinator.registry import Evaluation, Registry
from rootstock.coordinator.registry.documents import (
    EvaluationReport,
    EvaluationRequest,
    ReportedCalibration,
)

MAX_SAMPLES = 10**9
MAX_STEPS = 10**9
MAX_SECONDS = 10.0**8
"""Three years: a longer refinement is a clock gone wrong."""

MAX_FAILURE = 2000


def check_refinement(manifest: RefinementManifest, registry: Registry) -> None:
    """Refuse a refined adapter that no open request of its site asks for."""
    evaluation = _owned(registry, manifest.site, manifest.evaluation)
    if evaluation.request.refinement_spec is None:
        raise ConflictError(
            f"evaluation '{evaluation.id}' asks for no refined adapter; report the candidates only"
        )
    if evaluation.report is not None:
        raise ConflictError(
            f"evaluation '{evaluation.id}' has its report already; nothing is left to send for it"
        )


def take_report(registry: Registry, site: str, report: EvaluationReport) -> bool:
    """Store a lab's report; True if it is the first for its request.

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
        _check_results(evaluation.request, report)
        _check_refined(registry, evaluation, report)
    first = registry.evaluations.report(evaluation.id, report)
    failpoint("report.taken")
    return first


def _owned(registry: Registry, site: str, evaluation_id: str) -> Evaluation:
    evaluation = registry.evaluations.get(evaluation_id)
    if evaluation.site != site:
        raise IdentityError(
            f"evaluation '{evaluation_id}' was asked of another site than '{site}'; answer "
            "the requests of your own watch stream"
        )
    return evaluation


def _check_results(request: EvaluationRequest, report: EvaluationReport) -> None:
    if len(report.failure) > MAX_FAILURE:
        raise LimitError(
            f"report: failure has {len(report.failure)} characters, the limit is {MAX_FAILURE}"
        )
    if request.rest is not None:
        _check_rest(report)
        return
    asked = [str(candidate) for candidate in request.candidates]
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
        _percent(f"error of {result.name}", result.error)
        _percent(f"mean IoU of {result.name}", result.mean_iou)
        _within(f"samples of {result.name}", result.samples, MAX_SAMPLES)
        _check_calibration(result.name, result.calibration)


def _check_rest(report: EvaluationReport) -> None:
    if report.results or report.refinement is not None:
        raise SchemaError(
            "report: a witness is asked for the share of yes alone; send neither errors nor an "
            "adapter"
        )
    if report.rest is None:
        if not report.failure:
            raise SchemaError(
                "report: neither the share of yes nor, in `failure`, why there is none; send one"
            )
        return
    _within("share of yes", report.rest.yes, 100.0)
    _within("samples of the rest", report.rest.samples, MAX_SAMPLES, lowest=1)


def _check_calibration(name: str, calibration: ReportedCalibration | None) -> None:
    if calibration is not None:
        _percent(f"calibrated error of {name}", calibration.error)
        _percent(f"calibrated mean IoU of {name}", calibration.mean_iou)
        _within(f"scale of {name}", calibration.scale, MAX_CALIBRATION, lowest=MIN_SCALE)
        _within(f"bias of {name}", calibration.bias, MAX_CALIBRATION, lowest=-MAX_CALIBRATION)


def _check_refined(registry: Registry, evaluation: Evaluation, report: EvaluationReport) -> None:
    refinement = report.refinement
    if refinement is None:
        return
    _percent("refined_error", refinement.error)
    _percent("refined_mean_iou", refinement.mean_iou)
    _within("refinement_seconds", refinement.seconds, MAX_SECONDS)
    _within("refinement_steps", refinement.steps, MAX_STEPS)
    _check_calibration("refined", refinement.calibration)
    digest = refinement.manifest_digest
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


def _percent(name: str, value: float | None) -> None:
    if value is not None:
        _within(name, value, 100.0)


def _within(name: str, value: float, highest: float, lowest: float = 0.0) -> None:
    if not lowest <= value <= highest:  # false for NaN, too
        raise LimitError(f"report: {name} is {value}; it must be from {lowest:g} to {highest:g}")
