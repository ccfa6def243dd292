"""Merges of a coordinator without a server, brought to where a test begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rootstock.common.distillation.settings import MethodName
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry
from rootstock.coordinator.config import AcceptanceConfig, DistillationConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.model import JobResult, flat_settings
from rootstock.coordinator.jobs.runner import JobRunner
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.merges.evaluation import ask
from rootstock.coordinator.merges.reconciler import Reconciler
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.registry import Merge, MergeState, SubmissionState
from rootstock.coordinator.service.messages import evaluation_report
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_context import BY_RULE, receive, teacher
from tests.support.in_process_jobs import InThisProcess

ZERO = pb.OutputCalibration(scale=0.5, bias=0.015625, error=8.0)


def results(**calibrations: pb.OutputCalibration) -> list[pb.CandidateResult]:
    errors = {"no_adapter": 50.0, "zero_sample": 38.0}
    return [
        pb.CandidateResult(name=name, error=error, samples=40, calibration=calibrations.get(name))
        for name, error in errors.items()
    ]


SITE_KEY = SigningKey.generate()


def evaluating(context: CoordinatorContext, tmp_path: Path) -> Merge:
    """Bring dog, beside a founded cat, to the point where its lab was asked."""
    runner = merge_runner(context)
    for site, category in (("cat-lab", "cat"), ("dog-lab", "dog")):
        submission = receive(context, teacher(context, site, category), SITE_KEY)
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        if category == "cat":
            merge = context.registry.merges.create(
                submission, "cat", "classification", OperationKind.FOUND
            )
            asyncio.run(runner.carry(merge.id))
    merge = context.registry.merges.create(
        submission, "dog", "classification", OperationKind.NEW_CATEGORY
    )
    spec = AdapterSpec(in_channels=4, out_channels=4)
    path = tmp_path / "adapter"
    blob = safetensors_io.write(path, Adapter(spec).identity_start().state_dict())
    context.store.put_file(path, blob.digest)
    result = JobResult(
        zero_sample=AdapterEntry(spec=spec, blob=blob),
        few_sample=None,
        student_task_module=context.plan.initial_task_modules["classification"].digest,
        curves=(),
        seconds={"zero-sample": 1.0},
        report={"zero-sample/residual": 0.4},
        methods={"zero-sample": "closed-form"},
        fallbacks={"zero-sample": "dream: the dream did not converge"},
        settings=flat_settings(
            DistillationConfig(zero_sample_method=MethodName.DREAM).model_dump(mode="json")
        ),
    )
    context.registry.merges.advance(merge.id, MergeState.DISTILLING)
    merge = context.registry.merges.advance(
        merge.id,
        MergeState.EVALUATING,
        job_result=result.model_dump(mode="json"),
        numbers=MergeNumbers(teacher_error=5.0),
    )
    asked = context.registry.submissions.get(submission)
    ask(
        context,
        merge,
        asked,
        {Candidate.NO_ADAPTER: None, **result.adapters()},
        turn=1,
        refinement=spec,
    )
    return merge


def with_policy(context: CoordinatorContext, **policy: object) -> CoordinatorContext:
    acceptance = AcceptanceConfig.model_validate(BY_RULE | policy)
    config = context.config.model_copy(update={"acceptance": acceptance})
    return replace(context, config=config)


def merge_runner(context: CoordinatorContext, jobs: JobRunner | None = None) -> MergeRunner:
    return MergeRunner(context, Committer(context), jobs or InThisProcess())


def report(context: CoordinatorContext, merge: Merge) -> None:
    evaluation = context.registry.evaluations.of_merge(merge.id)
    assert evaluation is not None
    answer = pb.ReportEvaluationRequest(evaluation_id=evaluation.id, results=results())
    context.registry.evaluations.report(evaluation.id, evaluation_report(answer))


def reconcile(
    context: CoordinatorContext,
    *,
    until: Callable[[], object],
    retry_seconds: float = 0.05,
    jobs: JobRunner | None = None,
) -> None:
    """Run the reconciler until a state is reached; no job is needed, so Ray is not started."""
    paths = StatePaths(context.config)
    reconciler = Reconciler(
        context,
        merge_runner(context, jobs),
        HeadsFile(paths.heads),
        retry_seconds,
    )

    async def run() -> None:
        work = asyncio.create_task(reconciler.run())
        async with asyncio.timeout(20):
            while not until():
                await asyncio.sleep(0.01)
                if work.done():
                    work.result()
        work.cancel()
        await asyncio.wait({work})

    asyncio.run(run())
