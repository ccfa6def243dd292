"""What the owning lab is asked about a merge's candidates, and what its answer comes to.

Reports are held against their request when they arrive (``coordinator.service.reports``); what is
in the registry has passed that gate.
"""

from __future__ import annotations

import asyncio

from common.errors import ConflictError, NotFoundError
from common.nets.spec import AdapterSpec
from common.weights.admission import admit
from common.weights.manifest import AdapterEntry, RefinementManifest
from coordinator.jobs.model import JobResult
from coordinator.ledger import Ledger
from coordinator.registry import Change, Merge, NewEvent, Registry, Submission, evaluation_id
from protos.rootstock.federation.v1.federation_pb2 import (
    Candidate,
    EvaluationRequest,
    ReportEvaluationRequest,
    WatchResponse,
)

NO_ADAPTER = "no_adapter"
ZERO_SAMPLE = "zero_sample"
FEW_SAMPLE = "few_sample"
REFINED = "refined"

Candidates = dict[str, AdapterEntry | None]
"""Adapters that a merge may end with, by name; None joins the modules directly."""


def candidates_of(result: JobResult) -> Candidates:
    """Return what a job's result lets the lab choose from."""
    candidates: Candidates = {NO_ADAPTER: None, ZERO_SAMPLE: result.zero_sample}
    if result.few_sample is not None:
        candidates[FEW_SAMPLE] = result.few_sample
    return candidates


def ask(ledger: Ledger, merge: Merge, submission: Submission, candidates: Candidates) -> None:
    """Ask the owning lab for the errors of all candidates; again: the same request stays."""
    tree, zero_sample = ledger.tree(), candidates[ZERO_SAMPLE]
    if tree is None or zero_sample is None:
        raise ConflictError(f"merge {merge.id}: there is nothing to evaluate; distil first")
    student = tree.task_modules[merge.task]
    request = EvaluationRequest(
        evaluation_id=evaluation_id(merge.id),
        merge_id=merge.id,
        manifest_digest=submission.manifest_digest,
        task=merge.task,
        architecture=student.architecture.canonical(),
        task_module=student.blob.canonical(),
        candidates=[
            Candidate(name=name, adapter=entry.canonical() if entry else b"")
            for name, entry in candidates.items()
        ],
        refine=ledger.config.evaluation.refine,
        refinement_spec=zero_sample.spec.canonical(),
    )
    event = WatchResponse(evaluation=request).SerializeToString()
    ledger.registry.evaluations.request(
        merge.id,
        submission.site,
        request.SerializeToString(),
        events=[NewEvent(submission.site, "evaluation", event)],
    )


async def answer(registry: Registry, merge_id: str) -> ReportEvaluationRequest:
    """Wait for the lab's report; a lab that has vanished leaves the merge waiting."""
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake(_: Change) -> None:
        loop.call_soon_threadsafe(news.set)

    unsubscribe = registry.subscribe(wake)
    try:
        while True:
            news.clear()
            evaluation = await asyncio.to_thread(registry.evaluations.of_merge, merge_id)
            if evaluation is not None and evaluation.report is not None:
                return ReportEvaluationRequest.FromString(evaluation.report)
            await news.wait()
    finally:
        unsubscribe()


def numbers_of(report: ReportEvaluationRequest) -> dict[str, float]:
    """Return a report's numbers as a merge keeps them: errors in percent, seconds, steps."""
    numbers = {f"{result.name}_error": result.error for result in report.results}
    if report.refinement_manifest_digest:
        numbers[f"{REFINED}_error"] = report.refined_error
        numbers["seconds/refinement"] = report.refinement_seconds
        numbers["refinement_steps"] = float(report.refinement_steps)
    return numbers


def refined_adapter(
    ledger: Ledger, report: ReportEvaluationRequest, spec: AdapterSpec
) -> AdapterEntry:
    """Put a refined adapter through the gate.

    Raises
    ------
    RefusedError, ConflictError
        If it is not what was asked for, or fails a check.
    """
    upload = ledger.registry.uploads.refinement(report.refinement_manifest_digest)
    if upload is None:
        raise NotFoundError(f"refinement {report.refinement_manifest_digest} was not received")
    manifest = RefinementManifest.parse(upload.manifest, what="manifest")
    if manifest.adapter.spec != spec:
        raise ConflictError(f"the refined adapter is {manifest.adapter.spec}, asked for was {spec}")
    admit(manifest, ledger.plan, ledger.store.local_path)
    return manifest.adapter
