"""Answers evaluation requests: measures, refines, and leaves the answer in the spool."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from rootstock.common.errors import NotFoundError, RefusedError, SchemaError, TransplantError
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, RefinementManifest
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.evaluation import measure as evaluation
from rootstock.site_agent.evaluation import refine as refinement
from rootstock.site_agent.evaluation.measure import Joins
from rootstock.site_agent.evaluation.request import Request
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.spool.documents import CandidateError, EvaluationReport
from rootstock.site_agent.teacher.package import software, write_blob

DOWNLOADS = "downloads"


class Evaluator:
    """Works through evaluation requests, each once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def answer(self, message: pb.EvaluationRequest) -> None:
        """Leave a report in the spool, and a refined adapter if one is wanted.

        What is wrong with the request, or with what it names, is reported as a failure, so that
        the merge does not wait for ever. What is wrong here is raised.

        Raises
        ------
        DataError, StorageError
            The lab's images or disk; the request is seen again at the next start.
        Stopped
            If the agent is asked to stop; likewise.
        """
        lab = self._lab
        name = message.evaluation_id
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name) is None:
            lab.log.error("evaluation request without a usable id", id=name[:80])
            return
        if lab.spool.recall_report(name):
            lab.log.info("evaluated before", evaluation=name)
            return
        lab.status.progress("evaluating", message="evaluates candidates")
        try:
            report = self._report(Request.parse(message))
        except (RefusedError, NotFoundError, TransplantError) as error:
            lab.log.error("cannot be evaluated", evaluation=name, error=str(error))
            report = EvaluationReport(
                evaluation_id=name, failure=f"{type(error).__name__}: {error}"[:1000]
            )
        lab.spool.add_report(report)

    def _report(self, request: Request) -> EvaluationReport:
        lab, head = self._lab, request.head
        teacher = lab.spool.find(head.manifest_digest)
        if teacher is None:
            raise NotFoundError(
                f"this lab has no teacher with manifest {head.manifest_digest}; its state folder "
                "was set up anew: withdraw the merge, and let the lab ship again"
            )
        task = next((task for task in lab.tasks if task.name == head.task), None)
        if task is None:
            taught = ", ".join(task.name for task in lab.tasks)
            raise SchemaError(
                f"this lab teaches {taught}, not '{head.task}'; ask about a task of its manifest"
            )
        lab.log.info("evaluates", evaluation=head.evaluation_id, candidates=list(head.candidates))
        joins = evaluation.join(request, teacher, task, self._fetch, lab.device)
        lab.status.progress("evaluating", message="evaluates candidates")
        results = self._measure(joins)
        report = EvaluationReport(evaluation_id=head.evaluation_id, results=results)
        spec = request.refinement_spec
        if spec is not None and lab.config.refinement.enabled:
            report = self._refine(report, joins, spec)
        for entry in request.candidates.values():
            if entry is not None:
                (lab.config.state / DOWNLOADS / entry.blob.digest).unlink(missing_ok=True)
        return report

    def _refine(
        self, report: EvaluationReport, joins: Joins, spec: AdapterSpec
    ) -> EvaluationReport:
        lab = self._lab
        refined = refinement.refine(
            joins,
            spec,
            lab.data,
            lab.config.refinement,
            lab.config.training.augment,
            lab.device,
            lab.progress("refining", "refines the adapter"),
            lab.stop,
        )
        adapter = refined.adapter.to(lab.device).eval()
        (result,) = self._measure(dataclasses.replace(joins, adapters={"refined": adapter}))
        with lab.spool.staging() as staging:
            blob = write_blob(staging, refined.adapter.state_dict())
            manifest = RefinementManifest(
                site=lab.config.site,
                evaluation=report.evaluation_id,
                adapter=AdapterEntry(spec=spec, blob=blob),
                software=software(),
            )
            entry = lab.commit(staging, manifest, f"evaluation {report.evaluation_id}")
        lab.log.info(
            "refined",
            evaluation=report.evaluation_id,
            holdout_before=refined.start[0],
            holdout_after=refined.end[0],
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

    def _measure(self, joins: Joins) -> tuple[CandidateError, ...]:
        """Measure candidates, and log all that will be told of them."""
        lab = self._lab
        results = evaluation.measure(
            joins, lab.data, lab.device, lab.stop, calibrates=lab.config.evaluation.calibration
        )
        for result in results:
            lab.log.info("measured", **result.model_dump())
        return results

    def _fetch(self, blob: BlobEntry) -> Path:
        return self._lab.fetch(blob, DOWNLOADS)
