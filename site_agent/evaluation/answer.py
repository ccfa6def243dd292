"""Answers evaluation requests: measures, refines, and leaves the answer in the spool."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime

from rootstock.common.errors import (
    LimitError,
    NotFoundError,
    RefusedError,
    SchemaError,
    TransplantError,
)
from rootstock.common.failpoints import failpoint
from rootstock.common.files import storage_errors
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.text import outward
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.site_agent.consent.budget import Cost
from rootstock.site_agent.consent.question import (
    Question,
    WitnessQuestion,
    admit,
    blobs_of,
    cost_of,
)
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.consent.waiting import require_size
from rootstock.site_agent.evaluation.measure import Joins, join, measure
from rootstock.site_agent.evaluation.refine import Refinement
from rootstock.site_agent.evaluation.rest import rest_answer
from rootstock.site_agent.lab import AgentLab
from rootstock.site_agent.spool.documents import CandidateError, EvaluationReport
from rootstock.site_agent.teacher.package import software, write_blob
from rootstock.site_agent.wire.messages import EvaluationAsked

DOWNLOADS = "downloads"

_REFUSALS = (RefusedError, NotFoundError, TransplantError)


def answer(lab: AgentLab, asked: EvaluationAsked) -> None:
    """Leave a report in the spool, and a refined adapter if one is wanted; each request once.

    What is wrong with the request, or with what it names, is reported as a failure, so that
    the merge does not wait for ever. What is wrong here, with the lab's images or disk, is raised,
    and Stopped where the agent is asked to: the request is seen again at the next start. One for
    which the day's budget has no room waits for `answer_waiting`.
    """
    name = asked.evaluation_id
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is None:
        lab.log.error("evaluation.without_usable_id", evaluation=name[:80])
        return
    known, question, cost, refusal = lab.spool.reported(name), None, Cost(), None
    if not known:
        try:
            question, cost = _admitted(lab, asked)
        except _REFUSALS as error:
            refusal = error
    try:
        charged = lab.consent.charge(name, asked.serialized(), cost, again=known)
    except LimitError as error:
        lab.log.error("evaluation.dropped", evaluation=name, error=str(error))
        return
    if not charged:
        lab.log.warning("evaluation.postponed", evaluation=name, reason=lab.consent.remark())
    elif known:
        lab.spool.recall_report(name)
        lab.log.info("evaluation.recalled", evaluation=name)
    elif question is not None:
        report = _answered(lab, question)
        failpoint("evaluation.measured")
        lab.spool.add_report(report)
        failpoint("report.spooled")
    elif refusal is not None:
        lab.spool.add_report(_failure(lab, name, refusal))


def answer_waiting(lab: AgentLab) -> bool:
    """Answer the questions that waited for the budget, as far as it has room; say whether any."""
    before = lab.consent.due()
    for name in before:
        answer(lab, EvaluationAsked.parse(lab.consent.waiting.read(name)))
    return len(lab.consent.waiting.names()) < len(before)


def _admitted(lab: AgentLab, asked: EvaluationAsked) -> tuple[Question | WitnessQuestion, Cost]:
    require_size(asked.serialized())
    asked.verify(lab.config.site, lab.consent.coordinator_key)
    request = asked.read()
    if request.rest is not None and not lab.config.evaluation.witness:
        raise SchemaError("this lab is no witness of other labs' nets (evaluation.witness = false)")
    question = admit(request, lab.spool, lab.plan, lab.tasks, datetime.now(UTC))
    return question, cost_of(question, lab.config, lab.config.state / DOWNLOADS)


def _answered(lab: AgentLab, question: Question | WitnessQuestion) -> EvaluationReport:
    lab.status.progress("evaluating", message="evaluates candidates")
    try:
        if isinstance(question, WitnessQuestion):
            return _witnessed(lab, question)
        return _report(lab, question)
    except _REFUSALS as error:
        return _failure(lab, question.request.evaluation_id, error)


def _failure(lab: AgentLab, name: str, error: Exception) -> EvaluationReport:
    lab.log.error("evaluation.failed", evaluation=name, error=str(error))
    failure = outward(f"{type(error).__name__}: {error}".replace(f"{lab.config.state}/", ""))
    return EvaluationReport(evaluation_id=name, failure=failure[:1000])


def _report(lab: AgentLab, question: Question) -> EvaluationReport:
    request = question.request
    lab.log.info(
        "evaluation.begun", evaluation=request.evaluation_id, candidates=list(request.candidates)
    )
    _keep_only(lab, {blob.digest for blob in blobs_of(request)})
    joins = join(question, lambda blob: lab.download(blob, DOWNLOADS), lab.device)
    lab.status.progress("evaluating", message="evaluates candidates")
    results = _measured(lab, joins)
    report = EvaluationReport(evaluation_id=request.evaluation_id, results=results)
    spec = request.refinement_spec
    if spec is not None and lab.config.refinement.enabled:
        report = _refined(lab, report, joins, spec)
    return report


def _keep_only(lab: AgentLab, digests: set[str]) -> None:
    """Delete what was fetched for other questions: the disk is not the coordinator's."""
    folder = lab.config.state / DOWNLOADS
    with storage_errors(folder):
        for path in folder.glob("*"):
            if path.name.partition(".")[0] not in digests:
                path.unlink()


def _witnessed(lab: AgentLab, question: WitnessQuestion) -> EvaluationReport:
    """Answer about another lab's join, and keep nothing of it."""
    _keep_only(lab, {blob.digest for blob in blobs_of(question.request)})
    try:
        answer = rest_answer(lab, question, lambda blob: lab.download(blob, DOWNLOADS))
    finally:
        _keep_only(lab, set())
    return EvaluationReport(evaluation_id=question.request.evaluation_id, rest=answer)


def _refined(
    lab: AgentLab, report: EvaluationReport, joins: Joins, spec: AdapterSpec
) -> EvaluationReport:
    config = lab.config
    refinement = Refinement(joins, lab.data, config.refinement, config.training.augment, lab.stop)
    refined = refinement.run(spec, lab.progress("refining", "refines the adapter"))
    adapter = refined.adapter.to(lab.device).eval()
    (result,) = _measured(lab, dataclasses.replace(joins, adapters={"refined": adapter}))
    with lab.spool.staging() as staging:
        manifest = RefinementManifest(
            site=config.site,
            evaluation=report.evaluation_id,
            adapter=AdapterEntry(spec=spec, blob=write_blob(staging, refined.adapter.state_dict())),
            software=software(),
        )
        entry = lab.commit(staging, manifest, f"evaluation {report.evaluation_id}")
    lab.log.info(
        "refinement.done",
        evaluation=report.evaluation_id,
        holdout_before=refined.start.error,
        holdout_after=refined.end.error,
        steps=refined.steps,
        seconds=round(refined.seconds, 3),
        manifest=entry.digest,
    )
    return report.model_copy(
        update={
            "refinement_manifest_digest": entry.digest,
            "refined_error": result.error,
            "refined_mean_iou": result.mean_iou,
            "refined_calibration": result.calibration,
            "refinement_seconds": rounded(refined.seconds),
            "refinement_steps": refined.steps,
        }
    )


def _measured(lab: AgentLab, joins: Joins) -> tuple[CandidateError, ...]:
    """Measure candidates, and log every number that leaves the lab."""
    results = measure(joins, lab.data, lab.stop, calibrates=lab.config.evaluation.calibration)
    for result in results:
        lab.log.info("evaluation.measured", **result.model_dump())
    return results
