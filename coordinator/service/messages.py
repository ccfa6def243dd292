"""Converts between the federation's wire messages and documents."""

from __future__ import annotations

from typing import Any

from rootstock.common.identity.keys import SigningKey
from rootstock.common.transport.question import question_bytes
from rootstock.coordinator.provenance.signed_log import LoggedReceipt
from rootstock.coordinator.registry import Event, Receipt
from rootstock.coordinator.registry.documents import (
    EvaluationReport,
    EvaluationRequest,
    ReportedCalibration,
    ReportedRefinement,
    ReportedRest,
    ReportedResult,
    RestQuestion,
    news_of,
)
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb


def receipt_message(receipt: Receipt, logged: LoggedReceipt) -> pb.Receipt:
    """Return a receipt's message, with the proof that it is in the log."""
    return pb.Receipt(
        manifest_digest=receipt.manifest_digest,
        submission_id=receipt.subject,
        received_at=receipt.received_at,
        signature=receipt.signature,
        head=logged.head,
        entry=logged.entry,
        inclusion=logged.proof,
    )


def watch_response(event: Event) -> pb.WatchResponse:
    """Return an event's message, with its cursor."""
    news = news_of(event)
    response = pb.WatchResponse(cursor=event.cursor)
    field = getattr(response, news.kind)
    if isinstance(news, EvaluationRequest):
        field.CopyFrom(evaluation_request(news))
    else:
        field.CopyFrom(type(field)(**news.model_dump()))
    return response


def evaluation_request(request: EvaluationRequest) -> pb.EvaluationRequest:
    """Return an evaluation request's message."""
    spec, rest = request.refinement_spec, request.rest
    return pb.EvaluationRequest(
        evaluation_id=request.evaluation_id,
        merge_id=request.merge_id,
        manifest_digest=request.manifest_digest,
        task=request.task,
        architecture=request.architecture.canonical(),
        task_module=request.task_module.canonical(),
        candidates=[
            pb.Candidate(name=candidate, adapter=entry.canonical() if entry else b"")
            for candidate, entry in request.candidates.items()
        ],
        refine=spec is not None,
        refinement_spec=b"" if spec is None else spec.canonical(),
        rest=None if rest is None else _rest_question(rest),
    )


def _rest_question(rest: RestQuestion) -> pb.RestQuestion:
    return pb.RestQuestion(
        category=rest.category,
        category_module=rest.category_module.canonical(),
        architecture=rest.architecture.canonical(),
        scale=rest.calibration.scale,
        bias=rest.calibration.bias,
    )


def sign_question(
    question: pb.EvaluationRequest, site: str, expires_at: int, key: SigningKey
) -> None:
    """Sign a question, so that the lab can tell, and later prove, who asked it what."""
    question.expires_at = expires_at
    question.signature = key.sign(question_bytes(question, site))


def evaluation_report(message: pb.ReportEvaluationRequest) -> EvaluationReport:
    """Return the report of a message; nothing is checked yet."""
    nothing = ReportedRefinement(manifest_digest="", error=0.0, seconds=0.0, steps=0)
    refinement = ReportedRefinement(
        manifest_digest=message.refinement_manifest_digest,
        error=message.refined_error,
        mean_iou=_optional(message, "refined_mean_iou"),
        calibration=_calibration(_optional(message, "refined_calibration")),
        seconds=message.refinement_seconds,
        steps=message.refinement_steps,
    )
    return EvaluationReport(
        evaluation_id=message.evaluation_id,
        results=tuple(
            ReportedResult(
                name=result.name,
                error=result.error,
                samples=result.samples,
                mean_iou=_optional(result, "mean_iou"),
                calibration=_calibration(_optional(result, "calibration")),
            )
            for result in message.results
        ),
        refinement=None if refinement == nothing else refinement,
        rest=_rest(_optional(message, "rest")),
        failure=message.failure,
    )


def _calibration(message: pb.OutputCalibration | None) -> ReportedCalibration | None:
    if message is None:
        return None
    return ReportedCalibration(
        scale=message.scale,
        bias=message.bias,
        error=message.error,
        mean_iou=_optional(message, "mean_iou"),
    )


def _rest(message: pb.RestAnswer | None) -> ReportedRest | None:
    return None if message is None else ReportedRest(yes=message.yes, samples=message.samples)


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
