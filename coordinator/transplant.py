"""One merge, from queued to its end: distil, have the owning lab evaluate, decide, commit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from common.errors import ConflictError, RootstockError, StorageError, UnreachableError
from common.nets.spec import AdapterSpec, Setting
from common.weights.admission import admit
from common.weights.manifest import AdapterEntry, RefinementManifest, TeacherManifest
from coordinator.growth import Found, NewCategory, NewTask, acceptance, next_version
from coordinator.jobs.model import JobResult, Progress, TransplantJob
from coordinator.jobs.runner import JobRunner
from coordinator.ledger import Ledger, version_event
from coordinator.places import Places
from coordinator.registry import (
    OPEN_MERGES,
    Change,
    Evaluation,
    Merge,
    MergeState,
    NewEvent,
    Submission,
    evaluation_id,
)
from coordinator.registry.states import DIRECT_OPERATIONS
from protos.rootstock.federation.v1 import federation_pb2

NO_ADAPTER = "no_adapter"
ZERO_SAMPLE = "zero_sample"
FEW_SAMPLE = "few_sample"
REFINED = "refined"

OPERATIONS: dict[str, type[Found] | type[NewCategory] | type[NewTask]] = {
    kind.name: kind for kind in (Found, NewCategory, NewTask)
}

Candidates = dict[str, AdapterEntry | None]
"""Adapters that a merge may end with, by name; None joins the modules directly."""


class Transplanter:
    """Carries one merge at a time through its states; many may be carried side by side."""

    def __init__(self, ledger: Ledger, runner: JobRunner, places: Places) -> None:
        self._ledger = ledger
        self._runner = runner
        self._places = places
        self._committing = asyncio.Lock()
        self._log = structlog.get_logger("transplant")

    def ready(self, merge: Merge) -> bool:
        """Say whether an open merge can be carried on.

        A task that comes along waits until the merge that brings its category module has ended
        (paper, appendix: way 2); if that one came to nothing, so will this one.
        """
        if merge.operation != NewTask.name:
            return True
        bringing = [
            other
            for other in self._ledger.registry.merges.all(*OPEN_MERGES)
            if other.submission_id == merge.submission_id and other.operation != NewTask.name
        ]
        return not bringing

    async def carry(self, merge_id: str) -> None:
        """Go on from the state that the merge is in, to its end.

        A failure of the merge itself (maths that has no answer, a report that breaks a rule)
        ends it as `failed` with the reason.

        Raises
        ------
        StorageError, UnreachableError
            What waiting may mend; the merge stays as it is.
        """
        registry = self._ledger.registry
        merge = await asyncio.to_thread(registry.merges.get, merge_id)
        submission = await asyncio.to_thread(registry.submissions.get, merge.submission_id)
        try:
            if merge.operation in DIRECT_OPERATIONS:
                await self._commit(merge, submission, None, None)
                return
            if merge.state is MergeState.QUEUED:
                merge = await asyncio.to_thread(
                    registry.merges.advance, merge.id, MergeState.DISTILLING
                )
            if merge.state is MergeState.DISTILLING:
                merge = await self._distil(merge, submission)
            if merge.state is MergeState.EVALUATING:
                await self._conclude(merge, submission)
        except (StorageError, UnreachableError):
            raise
        except RootstockError as error:
            self._log.warning("failed", merge=merge_id, error=str(error))
            await asyncio.to_thread(
                self._ledger.end, merge, submission.site, MergeState.FAILED, str(error)
            )

    # -- distilling -------------------------------------------------------------------------

    async def _distil(self, merge: Merge, submission: Submission) -> Merge:
        registry = self._ledger.registry
        manifest = self._ledger.teacher(submission)
        job = await asyncio.to_thread(self._job, merge, manifest)
        loop = asyncio.get_running_loop()

        def show(progress: Progress) -> None:
            loop.run_in_executor(
                None,
                lambda: registry.merges.update(merge.id, step=progress.step, steps=progress.steps),
            )

        result = await self._runner.run(job, show)
        numbers = {"teacher_error": manifest.metrics[f"error/{merge.task}"]}
        if manifest.shared_samples is not None:
            numbers["few_samples"] = float(manifest.shared_samples.count)
        numbers |= {f"seconds/{stage}": spent for stage, spent in result.seconds.items()}
        return await asyncio.to_thread(
            registry.merges.advance,
            merge.id,
            MergeState.EVALUATING,
            job_result=result.model_dump(mode="json"),
            numbers=numbers,
        )

    def _job(self, merge: Merge, manifest: TeacherManifest) -> TransplantJob:
        ledger = self._ledger
        tree = ledger.tree()
        if tree is None:
            raise ConflictError(f"merge {merge.id}: there is no net to join; found one first")
        student = tree.task_modules[merge.task]
        task = ledger.plan.task(merge.task)
        if task is None:
            raise ConflictError(f"merge {merge.id}: the plan has no task {merge.task!r} any more")
        samples = manifest.shared_samples
        return TransplantJob(
            merge_id=merge.id,
            task=task,
            teacher_architecture=manifest.architecture,
            student_architecture=student.architecture,
            category_module=manifest.category_module,
            teacher_task_module=manifest.task_modules[merge.task],
            student_task_module=student.blob,
            samples=samples.blob if samples is not None else None,
            teacher_statistics=manifest.statistics,
            student_statistics=ledger.teacher_of(student.submission).statistics,
            settings=ledger.config.distillation,
            artifacts=self._places.artifacts,
            cache=str(self._places.cache),
            checkpoint_steps=ledger.config.jobs.checkpoint_steps,
        )

    # -- evaluating -------------------------------------------------------------------------

    async def _conclude(self, merge: Merge, submission: Submission) -> None:
        """Ask the owning lab, wait for its numbers however long that takes, and decide."""
        result = JobResult.model_validate(merge.job_result)
        candidates: Candidates = {NO_ADAPTER: None, ZERO_SAMPLE: result.zero_sample}
        if result.few_sample is not None:
            candidates[FEW_SAMPLE] = result.few_sample
        await asyncio.to_thread(self._request, merge, submission, candidates)
        evaluation = await self._reported(merge)
        report = federation_pb2.ReportEvaluationRequest.FromString(evaluation.report or b"")
        if report.failure:
            raise ConflictError(
                f"{submission.site} could not evaluate the candidates: {report.failure}"
            )
        errors = read_errors(report, frozenset(candidates))
        if report.refinement_manifest_digest:
            candidates[REFINED] = await asyncio.to_thread(
                self._refined, report, merge, result.zero_sample.spec
            )
        numbers = {f"{name}_error": error for name, error in errors.items()}
        if REFINED in errors:
            numbers["seconds/refinement"] = min(max(report.refinement_seconds, 0.0), 1e9)
            numbers["refinement_steps"] = float(min(report.refinement_steps, 1 << 40))
        merge = await asyncio.to_thread(
            self._ledger.registry.merges.update, merge.id, numbers=numbers
        )
        verdict = acceptance(self._ledger.config.acceptance, merge.numbers)
        if not verdict.accepted or verdict.candidate is None:
            await asyncio.to_thread(
                self._ledger.end, merge, submission.site, MergeState.REJECTED, verdict.reason
            )
            return
        await self._commit(merge, submission, verdict.candidate, candidates[verdict.candidate])

    def _request(self, merge: Merge, submission: Submission, candidates: Candidates) -> None:
        tree = self._ledger.tree()
        assert tree is not None, "a merge past distilling has a net"  # noqa: S101
        student = tree.task_modules[merge.task]
        zero_sample = candidates[ZERO_SAMPLE]
        assert zero_sample is not None, "the closed form always gives an adapter"  # noqa: S101
        request = federation_pb2.EvaluationRequest(
            evaluation_id=evaluation_id(merge.id),
            merge_id=merge.id,
            manifest_digest=submission.manifest_digest,
            task=merge.task,
            architecture=student.architecture.canonical(),
            task_module=student.blob.canonical(),
            candidates=[
                federation_pb2.Candidate(name=name, adapter=entry.canonical() if entry else b"")
                for name, entry in candidates.items()
            ],
            refine=self._ledger.config.evaluation.refine,
            refinement_spec=zero_sample.spec.canonical(),
        )
        event = federation_pb2.WatchResponse(evaluation=request)
        self._ledger.registry.evaluations.request(
            merge.id,
            submission.site,
            request.SerializeToString(),
            events=[NewEvent(submission.site, "evaluation", event.SerializeToString())],
        )

    async def _reported(self, merge: Merge) -> Evaluation:
        """Wait for the lab's answer; a lab that has vanished leaves the merge waiting."""
        news = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake(_: Change) -> None:
            loop.call_soon_threadsafe(news.set)

        unsubscribe = self._ledger.registry.subscribe(wake)
        try:
            while True:
                news.clear()
                evaluation = await asyncio.to_thread(
                    self._ledger.registry.evaluations.of_merge, merge.id
                )
                if evaluation is not None and evaluation.report is not None:
                    return evaluation
                await news.wait()
        finally:
            unsubscribe()

    def _refined(
        self,
        report: federation_pb2.ReportEvaluationRequest,
        merge: Merge,
        spec: AdapterSpec,
    ) -> AdapterEntry:
        """Put a refined adapter through the gate.

        Raises
        ------
        RefusedError
            If it is not what was asked for, or fails a check.
        """
        upload = self._ledger.registry.uploads.refinement(report.refinement_manifest_digest)
        if upload is None or upload.evaluation_id != evaluation_id(merge.id):
            raise ConflictError(
                f"the report names refinement {report.refinement_manifest_digest[:12]}, which was "
                f"not received for {evaluation_id(merge.id)}; upload it before reporting"
            )
        manifest = RefinementManifest.parse(upload.manifest, what="manifest")
        if manifest.adapter.spec != spec:
            raise ConflictError(
                f"the refined adapter is {manifest.adapter.spec}, asked for was {spec}"
            )
        admit(manifest, self._ledger.plan, self._ledger.store.local_path)
        return manifest.adapter

    # -- committing -------------------------------------------------------------------------

    async def _commit(
        self,
        merge: Merge,
        submission: Submission,
        candidate: str | None,
        adapter: AdapterEntry | None,
    ) -> None:
        """Make the next net version; commits are serial, whatever learns side by side."""
        async with self._committing:
            await asyncio.to_thread(self._commit_now, merge, submission, candidate, adapter)
        self._log.info("merged", merge=merge.id, category=merge.category, task=merge.task)

    def _commit_now(
        self,
        merge: Merge,
        submission: Submission,
        candidate: str | None,
        adapter: AdapterEntry | None,
    ) -> None:
        ledger = self._ledger
        manifest = ledger.teacher(submission)
        head = ledger.head()
        numbers = {**merge.numbers, "teacher_error": manifest.metrics[f"error/{merge.task}"]}
        error = numbers[f"{candidate}_error" if candidate else "teacher_error"]
        record: dict[str, Setting | None] = {
            "id": merge.id,
            "operation": merge.operation,
            "category": merge.category,
            "task": merge.task,
            "site": submission.site,
            "submission": submission.manifest_digest,
            "candidate": candidate,
            **numbers,
        }
        tree, unsigned = next_version(
            ledger.tree(),
            ledger.commit_of(head) if head is not None else None,
            OPERATIONS[merge.operation](merge.category, merge.task),
            manifest,
            ledger.plan,
            manifest_digest=submission.manifest_digest,
            adapter=adapter,
            error=error,
            merge=record,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        signature = ledger.key.sign(unsigned.signed_bytes()).hex()
        commit = unsigned.model_copy(update={"signature": signature})
        digest = ledger.put(commit)
        ledger.registry.versions.commit(
            commit.number,
            digest,
            ledger.put(tree),
            head.number if head is not None else None,
            merge.id,
            events=[version_event(commit.number, digest, merge.category, merge.task)],
            numbers=numbers,
            candidate=candidate,
        )


def read_errors(
    report: federation_pb2.ReportEvaluationRequest, asked: frozenset[str]
) -> dict[str, float]:
    """Return a report's errors in percent by candidate, each checked before it is used.

    Raises
    ------
    ConflictError
        If a candidate is missing, was not asked for, or has an error outside 0 to 100.
    """
    errors = {result.name: result.error for result in report.results}
    if set(errors) != asked:
        raise ConflictError(
            f"the report covers {sorted(errors)}, asked for were {sorted(asked)}; report each once"
        )
    if report.refinement_manifest_digest:
        errors[REFINED] = report.refined_error
    for name, error in errors.items():
        if not 0.0 <= error <= 100.0:
            raise ConflictError(f"the report says {name} has an error of {error}%; 0 to 100 is one")
    return errors
