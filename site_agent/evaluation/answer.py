"""Answers evaluation requests: measures, refines, and leaves the answer in the spool."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import UTC, datetime

from rootstock.common.errors import (
    DataError,
    LimitError,
    NotFoundError,
    RefusedError,
    SchemaError,
    TransplantError,
)
from rootstock.common.failpoints import failpoint
from rootstock.common.files import storage_errors
from rootstock.common.heap import tensors_kept
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.text import outward
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.site_agent.consent.budget import Cost, require_within
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

Refuse = Callable[[EvaluationReport], None]
"""Sends the failure of a question of which nothing is kept."""


def answer(lab: AgentLab, asked: EvaluationAsked, refuse: Refuse) -> None:
    """Leave a report in the spool, and a refined adapter if one is wanted; each request once.

    What is wrong with the request, or with what it names, is reported as a failure, so that
    the merge does not wait for ever. What is wrong here, with the lab's images or disk, is raised,
    and Stopped where the agent is asked to: the request is seen again at the next start. One for
    which the day's budget has no room waits for `answer_waiting`.

    A question that the coordinator has not signed draws nothing, and leaves nothing below its
    id: an honest one of that id is answered as if it had not been.
    """
    name = asked.evaluation_id
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is None:
        lab.log.error("evaluation.without_usable_id", evaluation=name[:80])
        return
    known = lab.spool.reported(name)
    try:
        require_size(asked.serialized())
        asked.verify(lab.config.site, lab.consent.coordinator_key)
    except RefusedError as error:
        failure = _failure(lab, name, error)
        if known is None:
            refuse(failure)
        return
    question, cost, refusal = None, Cost(), None
    try:
        question, cost = _admitted(lab, asked, known)
    except _REFUSALS as error:
        refusal = error
    try:
        charged = lab.consent.charge(name, asked.serialized(), cost)
    except LimitError as error:
        lab.log.error("evaluation.dropped", evaluation=name, error=str(error))
        return
    if not charged:
        lab.log.warning("evaluation.postponed", evaluation=name, reason=lab.consent.remark())
    elif refusal is not None:
        failure = _failure(lab, name, refusal)
        lab.consent.answered(asked.serialized())
        if known is None:
            lab.spool.add_report(failure)
        else:
            refuse(failure)
    elif known is not None:
        lab.consent.answered(asked.serialized())
        lab.spool.recall_report(name)
        lab.log.info("evaluation.recalled", evaluation=name)
    elif question is not None:
        report = _answered(lab, question)
        failpoint("evaluation.measured")
        lab.consent.answered(asked.serialized())
        lab.spool.add_report(report)
        failpoint("report.spooled")


def answer_waiting(lab: AgentLab, refuse: Refuse) -> bool:
    """Answer the questions that waited for the budget, as far as it has room; say whether any."""
    before = lab.consent.due()
    for name in before:
        try:
            asked = _waiting(lab, name)
        except RefusedError as error:
            path = lab.consent.waiting.set_aside(name)
            lab.log.error(
                "evaluation.set_aside", evaluation=name, reason=f"{error}; set aside as {path}"
            )
        else:
            answer(lab, asked, refuse)
    return len(lab.consent.waiting.names()) < len(before)


def _waiting(lab: AgentLab, name: str) -> EvaluationAsked:
    asked = EvaluationAsked.parse(lab.consent.waiting.read(name))
    if asked.evaluation_id != name:
        raise SchemaError(
            f"the file of question '{name}' holds another: {asked.evaluation_id[:80]!r}"
        )
    asked.verify(lab.config.site, lab.consent.coordinator_key)
    return asked


def _admitted(
    lab: AgentLab, asked: EvaluationAsked, known: EvaluationReport | None
) -> tuple[Question | WitnessQuestion, Cost]:
    """Return a question and its cost: of one that was answered, the numbers that leave again."""
    request = asked.read()
    if request.rest is not None and not lab.config.evaluation.witness:
        raise SchemaError("this lab is no witness of other labs' nets (evaluation.witness = false)")
    question = admit(request, lab.spool, lab.plan, lab.tasks, datetime.now(UTC))
    if known is None:
        return question, cost_of(question, lab.config, lab.config.state / DOWNLOADS)
    cost = Cost(numbers=len(known.numbers()))
    require_within(cost, lab.config.consent)
    return question, cost


@tensors_kept()
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
    except DataError as error:
        # Another lab's merge does not wait for this one's images, nor end its agent.
        return _failure(lab, question.request.evaluation_id, error)
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
