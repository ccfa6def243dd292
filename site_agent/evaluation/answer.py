"""Answers evaluation requests: measures, refines, and leaves the answer in the spool."""

from __future__ import annotations

import dataclasses
import re

from rootstock.common.errors import NotFoundError, RefusedError, SchemaError, TransplantError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.site_agent.evaluation.measure import Joins, join, measure
from rootstock.site_agent.evaluation.refine import Refinement
from rootstock.site_agent.lab import AgentLab
from rootstock.site_agent.spool.documents import CandidateError, EvaluationReport
from rootstock.site_agent.teacher.package import software, write_blob
from rootstock.site_agent.wire.messages import EvaluationAsked, EvaluationRequest

DOWNLOADS = "downloads"


def answer(lab: AgentLab, asked: EvaluationAsked) -> None:
    """Leave a report in the spool, and a refined adapter if one is wanted; each request once.

    What is wrong with the request, or with what it names, is reported as a failure, so that
    the merge does not wait for ever. What is wrong here, with the lab's images or disk, is raised,
    and Stopped where the agent is asked to: the request is seen again at the next start.
    """
    name = asked.evaluation_id
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is None:
        lab.log.error("evaluation.without_usable_id", evaluation=name[:80])
        return
    if lab.spool.recall_report(name):
        lab.log.info("evaluation.recalled", evaluation=name)
        return
    lab.status.progress("evaluating", message="evaluates candidates")
    try:
        report = _report(lab, asked.read())
    except (RefusedError, NotFoundError, TransplantError) as error:
        lab.log.error("evaluation.failed", evaluation=name, error=str(error))
        failure = f"{type(error).__name__}: {error}"[:1000]
        report = EvaluationReport(evaluation_id=name, failure=failure)
    failpoint("evaluation.measured")
    lab.spool.add_report(report)
    failpoint("report.spooled")


def _report(lab: AgentLab, request: EvaluationRequest) -> EvaluationReport:
    teacher = lab.spool.find(request.manifest_digest)
    if teacher is None:
        raise NotFoundError(
            f"this lab has no teacher with manifest {request.manifest_digest}; its state folder "
            "was set up anew: withdraw the merge, and let the lab ship again"
        )
    task = next((task for task in lab.tasks if task.name == request.task), None)
    if task is None:
        taught = ", ".join(task.name for task in lab.tasks)
        raise SchemaError(
            f"this lab teaches {taught}, not '{request.task}'; ask about a task of its manifest"
        )
    lab.log.info(
        "evaluation.begun", evaluation=request.evaluation_id, candidates=list(request.candidates)
    )
    joins = join(request, teacher, task, lambda blob: lab.download(blob, DOWNLOADS), lab.device)
    lab.status.progress("evaluating", message="evaluates candidates")
    results = _measured(lab, joins)
    report = EvaluationReport(evaluation_id=request.evaluation_id, results=results)
    spec = request.refinement_spec
    if spec is not None and lab.config.refinement.enabled:
        report = _refined(lab, report, joins, spec)
    for entry in request.candidates.values():
        if entry is not None:
            (lab.config.state / DOWNLOADS / entry.blob.digest).unlink(missing_ok=True)
    return report


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
            "refinement_seconds": refined.seconds,
            "refinement_steps": refined.steps,
        }
    )


def _measured(lab: AgentLab, joins: Joins) -> tuple[CandidateError, ...]:
    """Measure candidates, and log every number that leaves the lab."""
    results = measure(joins, lab.data, lab.stop, calibrates=lab.config.evaluation.calibration)
    for result in results:
        lab.log.info("evaluation.measured", **result.model_dump())
    return results
