"""What the owning lab is asked about a merge's candidates, and what its answer comes to.

Reports are held against their request when they arrive (``coordinator.service.reports``); what is
in the registry has passed that gate.
"""

from __future__ import annotations

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import AdapterEntry, RefinementManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.registry import (
    Decision,
    Merge,
    NewEvent,
    Registry,
    Submission,
    evaluation_id,
)
from rootstock.coordinator.registry.wait import wait_for
from rootstock.protos.rootstock.federation.v1 import federation_pb2
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    EvaluationRequest,
    ReportEvaluationRequest,
    WatchResponse,
)

Candidates = dict[Candidate, AdapterEntry | None]
"""Adapters that a merge may end with; None joins the modules directly."""


def candidates_of(result: JobResult) -> Candidates:
    """Return what a job's result lets the lab choose from."""
    return {Candidate.NO_ADAPTER: None, **result.adapters()}


def ask(
    context: CoordinatorContext,
    merge: Merge,
    submission: Submission,
    candidates: Candidates,
    *,
    turn: int,
    refinement: AdapterSpec | None,
) -> None:
    """Ask the owning lab for the errors of all candidates; again: the same request stays.

    Parameters
    ----------
    context, merge, submission
        Whose candidates.
    candidates
        See `candidates_of`.
    turn
        Which question to the lab this is about the merge; counts from 1.
    refinement
        The structure of the adapter that the lab is to refine; None: it is not asked to.
    """
    tree = context.tree()
    if tree is None:
        raise ConflictError(f"merge {merge.id}: there is nothing to evaluate; found a net first")
    student = tree.task_modules[merge.task]
    request = EvaluationRequest(
        evaluation_id=evaluation_id(merge.id, turn),
        merge_id=merge.id,
        manifest_digest=submission.manifest_digest,
        task=merge.task,
        architecture=student.architecture.canonical(),
        task_module=student.blob.canonical(),
        candidates=[
            federation_pb2.Candidate(name=name, adapter=entry.canonical() if entry else b"")
            for name, entry in candidates.items()
        ],
        refine=refinement is not None,
        refinement_spec=b"" if refinement is None else refinement.canonical(),
    )
    event = WatchResponse(evaluation=request).SerializeToString()
    context.registry.evaluations.request(
        merge.id,
        submission.site,
        request.SerializeToString(),
        events=[NewEvent(submission.site, "evaluation", event)],
        turn=turn,
    )


async def answer(registry: Registry, merge_id: str, turn: int) -> ReportEvaluationRequest | None:
    """Wait for the lab's report; a lab that has vanished leaves the merge waiting.

    None if the operator rejects the merge in the meantime.
    """

    def look() -> ReportEvaluationRequest | Decision | None:
        evaluation = registry.evaluations.of_merge(merge_id, turn)
        if evaluation is not None and evaluation.report is not None:
            return ReportEvaluationRequest.FromString(evaluation.report)
        return registry.merges.get(merge_id).decision

    found = await wait_for(registry, look)
    return found if isinstance(found, ReportEvaluationRequest) else None


def numbers_of(report: ReportEvaluationRequest) -> MergeNumbers:
    """Return what a lab reports of a merge."""
    candidates = {}
    for told in _told(report):
        candidate = Candidate(told.name)
        found = told.calibration if told.HasField("calibration") else None
        # The baseline's mean IoU is without a calibration, as its error is.
        measured = told if found is None or candidate is Candidate.NO_ADAPTER else found
        candidates[candidate] = CandidateResult(
            error=told.error if found is None else found.error,
            uncalibrated_error=told.error,
            mean_iou=measured.mean_iou if measured.HasField("mean_iou") else None,
            calibration=None if found is None else Calibration(scale=found.scale, bias=found.bias),
        )
    if not report.refinement_manifest_digest:
        return MergeNumbers(candidates=candidates)
    return MergeNumbers(
        candidates=candidates,
        seconds={"refinement": report.refinement_seconds},
        refinement_steps=float(report.refinement_steps),
    )


def _told(report: ReportEvaluationRequest) -> list[federation_pb2.CandidateResult]:
    """Return what is told of every candidate, the refined one last."""
    results = list(report.results)
    if report.refinement_manifest_digest:
        results.append(
            federation_pb2.CandidateResult(
                name=Candidate.REFINED,
                error=report.refined_error,
                mean_iou=report.refined_mean_iou if report.HasField("refined_mean_iou") else None,
                calibration=report.refined_calibration
                if report.HasField("refined_calibration")
                else None,
            )
        )
    return results


def refined_adapter(
    context: CoordinatorContext, report: ReportEvaluationRequest, spec: AdapterSpec
) -> AdapterEntry:
    """Put a refined adapter through the gate.

    Raises
    ------
    RefusedError, ConflictError
        If it is not what was asked for, or fails a check.
    """
    upload = context.registry.uploads.refinement(report.refinement_manifest_digest)
    if upload is None:
        raise NotFoundError(f"refinement {report.refinement_manifest_digest} was not received")
    manifest = RefinementManifest.parse(upload.manifest, what="manifest")
    if manifest.adapter.spec != spec:
        raise ConflictError(f"the refined adapter is {manifest.adapter.spec}, asked for was {spec}")
    admit(manifest, context.plan, context.store.local_path)
    return manifest.adapter
