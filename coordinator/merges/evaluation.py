"""A merge's questions to the owning lab about its candidates, and the numbers in its answer.

A report is checked against its request when it arrives (``coordinator.service.reports``); what is
in the registry has passed.
"""

from __future__ import annotations

import time

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.protocol import evaluation_id
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers
from rootstock.coordinator.registry import OPEN_MERGES, Decision, Merge, Registry, Submission
from rootstock.coordinator.registry.documents import (
    EvaluationReport,
    EvaluationRequest,
    ReportedRefinement,
    ReportedResult,
)
from rootstock.coordinator.registry.wait import wait_for

Candidates = dict[Candidate, AdapterEntry | None]
"""Adapters that a merge may end with; None joins the modules directly."""


def ask(
    context: CoordinatorContext,
    merge: Merge,
    submission: Submission,
    candidates: Candidates,
    *,
    turn: int,
    refinement: AdapterSpec | None,
) -> None:
    """Ask the owning lab for the errors of all candidates; asked again, the first request stays.

    `turn` counts the questions about a merge from 1. `refinement` is the structure of the adapter
    that the lab is to refine; None: it is not asked to.
    """
    tree = context.tree()
    if tree is None:
        raise ConflictError(f"merge {merge.id}: there is nothing to evaluate; found a net first")
    student = tree.task_modules.get(merge.task)
    if student is None:
        raise ConflictError(
            f"merge {merge.id}: the task module '{merge.task}' was rolled back while its adapter "
            "was learned; have the lab ship its teacher net again"
        )
    request = EvaluationRequest(
        evaluation_id=evaluation_id(merge.id, turn),
        merge_id=merge.id,
        manifest_digest=submission.manifest_digest,
        task=merge.task,
        architecture=student.architecture,
        task_module=student.blob,
        candidates=candidates,
        refinement_spec=refinement,
    )
    context.registry.evaluations.request(submission.site, request)


async def answer(
    registry: Registry, merge_id: str, turn: int, patience_days: float
) -> EvaluationReport | None:
    """Wait for the lab's report; None if the operator rejects the merge.

    ConflictError if the lab has not answered in that time.
    """

    def look() -> EvaluationReport | Decision | None:
        evaluation = registry.evaluations.of_merge(merge_id, turn)
        if evaluation is not None and evaluation.report is not None:
            return evaluation.report
        merge = registry.merges.get(merge_id)
        if merge.state not in OPEN_MERGES:
            raise ConflictError(f"merge {merge_id} has ended in the meantime: {merge.reason}")
        decision = merge.decision
        if decision is None and evaluation is not None:
            asked_at = evaluation.requested_at
            if time.time() > asked_at + patience_days * 24 * 3600:
                raise ConflictError(
                    f"{evaluation.site} has not answered evaluation {evaluation.id} for "
                    f"{patience_days:g} days (evaluation.patience_days); have it ship its teacher "
                    "net again when its agent runs"
                )
        return decision

    answer = await wait_for(registry, merge_id, look)
    return answer if isinstance(answer, EvaluationReport) else None


def numbers_of(report: EvaluationReport) -> MergeNumbers:
    """Return what a lab measured of a merge."""
    candidates = {Candidate(each.name): _result(each) for each in report.results}
    refined = report.refined
    if refined is None:
        return MergeNumbers(candidates=candidates)
    return MergeNumbers(
        candidates=candidates | {Candidate.REFINED: _result(refined)},
        seconds={"refinement": refined.seconds},
        refinement_steps=float(refined.steps),
    )


def _result(reported: ReportedResult | ReportedRefinement) -> CandidateResult:
    calibration = reported.calibration
    # The baseline's mean IoU is without a calibration, as its error is.
    baseline = isinstance(reported, ReportedResult) and reported.name == Candidate.NO_ADAPTER
    if calibration is None:
        return CandidateResult(reported.error, reported.error, reported.mean_iou)
    return CandidateResult(
        error=calibration.error,
        uncalibrated_error=reported.error,
        mean_iou=reported.mean_iou if baseline else calibration.mean_iou,
        calibration=Calibration(scale=calibration.scale, bias=calibration.bias),
    )


def refined_adapter(
    context: CoordinatorContext, manifest_digest: str, spec: AdapterSpec
) -> AdapterEntry:
    """Put a refined adapter through the gate, and refuse one that is not what was asked for."""
    upload = context.registry.uploads.refinement(manifest_digest)
    if upload is None:
        raise NotFoundError(f"refinement {manifest_digest} was not received")
    manifest = RefinementManifest.parse(upload.manifest, what="manifest")
    if manifest.adapter.spec != spec:
        raise ConflictError(f"the refined adapter is {manifest.adapter.spec}, asked for was {spec}")
    admit(manifest, context.plan, context.store.local_path)
    return manifest.adapter
