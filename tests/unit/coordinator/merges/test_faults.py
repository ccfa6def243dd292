"""What goes wrong with one submission or merge costs no other, and never the coordinator."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from rootstock.common.errors import ConflictError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.protocol import Plan
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.inspection import Inspection, InspectionJob
from rootstock.coordinator.merges import judge, probe, reconciler
from rootstock.coordinator.merges.evaluation import ask
from rootstock.coordinator.merges.reconciler import ATTEMPTS, MAX_PAUSE_SECONDS, pause_after
from rootstock.coordinator.registry import MergeState, Submission, SubmissionState
from tests.support.coordinator_context import ARCHITECTURE, receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import evaluating, merge_runner, reconcile


class Faulty(InThisProcess):
    """Fails at one merge as torch does, with an error that is not the project's own."""

    def __init__(self, merge_id: str, times: int) -> None:
        super().__init__()
        self.merge_id = merge_id
        self.left = times

    async def inspect(self, job: InspectionJob) -> Inspection:
        if job.merge_id == self.merge_id and self.left:
            self.left -= 1
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return await super().inspect(job)


def faults(logs: Sequence[Mapping[str, object]]) -> list[tuple[object, object, object]]:
    return [
        (entry["work"], entry["attempt"], entry["exc_info"])
        for entry in logs
        if entry["event"] == "work.failed"
    ]


def test_a_merge_with_a_fault_fails_and_the_next_lab_founds_the_net(
    context: CoordinatorContext,
) -> None:
    cat, dog = (receive(context, teacher(context, f"{name}-lab", name)) for name in ("cat", "dog"))
    merges = context.registry.merges
    jobs = Faulty("mrg-0001", ATTEMPTS)
    with capture_logs() as logs:
        reconcile(context, jobs=jobs, until=lambda: merges.all(MergeState.MERGED))
    failed, merged = merges.all()
    assert (failed.submission_id, failed.state) == (cat, MergeState.FAILED)
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in failed.reason
    assert (merged.submission_id, merged.state) == (dog, MergeState.MERGED)
    # The log has the traceback of each attempt.
    assert faults(logs) == [(failed.id, attempt, True) for attempt in range(1, ATTEMPTS + 1)]
    assert [event.kind for event in context.registry.events.after("cat-lab", 0, 10)][
        -1
    ] == "version"


def test_a_fault_that_passes_costs_nothing(context: CoordinatorContext) -> None:
    receive(context, teacher(context, "cat-lab", "cat"))
    merges = context.registry.merges
    reconcile(
        context, jobs=Faulty("mrg-0001", ATTEMPTS - 1), until=lambda: merges.all(MergeState.MERGED)
    )


def test_a_merge_that_cannot_be_read_is_parked_across_restarts(context: CoordinatorContext) -> None:
    """Its row is damaged, so it can neither go on nor be ended; labs are served all the same."""
    registry = context.registry
    cat = receive(context, teacher(context, "cat-lab", "cat"))
    registry.submissions.set_state(cat, SubmissionState.ADMITTED)
    merge = registry.merges.create(cat, "cat", "classification", OperationKind.FOUND)
    damage(context.config.state, merge.id, '["no numbers"]')
    for lab in ("dog", "cow"):
        submission = receive(context, teacher(context, f"{lab}-lab", lab))
        with capture_logs() as logs:
            reconcile(context, until=partial(parked_and_admitted, context, logs, submission))
        assert (merge.id, ATTEMPTS, True) in faults(logs)
    damage(context.config.state, merge.id, "{}")
    reconcile(context, until=lambda: registry.merges.get(merge.id).state is MergeState.MERGED)


def parked_and_admitted(
    context: CoordinatorContext, logs: Sequence[Mapping[str, object]], submission: str
) -> bool:
    parked = any(entry["event"] == "work.parked" for entry in logs)
    state = context.registry.submissions.get(submission).state
    return parked and state is SubmissionState.ADMITTED


def damage(state: Path, merge_id: str, numbers: str) -> None:
    connection = sqlite3.connect(state / "registry.sqlite")
    with connection:
        connection.execute("UPDATE merges SET numbers = ? WHERE id = ?", (numbers, merge_id))
    connection.close()


def test_a_submission_whose_admission_has_a_fault_is_refused(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fault(manifest: TeacherManifest, plan: Plan, path: Callable[[str], Path]) -> None:
        if manifest.site == "cat-lab":
            raise ZeroDivisionError("division by zero")
        admit(manifest, plan, path)

    monkeypatch.setattr(reconciler, "admit", fault)
    cat, dog = (receive(context, teacher(context, f"{name}-lab", name)) for name in ("cat", "dog"))
    submissions = context.registry.submissions
    reconcile(
        context,
        until=lambda: (
            submissions.get(cat).state is SubmissionState.REFUSED
            and context.registry.versions.head() is not None
        ),
    )
    assert "ZeroDivisionError: division by zero" in submissions.get(cat).reason
    (merged,) = context.registry.merges.all(MergeState.MERGED)
    assert merged.submission_id == dog


def test_finite_weights_that_overflow_are_refused_and_the_next_lab_founds_the_net(
    context: CoordinatorContext,
) -> None:
    """Their answers are NaN: the history's figure of them ended the coordinator, for good."""
    f, heads = initial_modules(ARCHITECTURE, context.plan.tasks, seed=0)
    loud = [
        put_tensors(context.store, {k: v * (9e5 / max(float(v.norm()), 1)) for k, v in m.items()})
        for m in (f.state_dict(), heads["classification"].state_dict())
    ]
    modules = {"category_module": loud[0], "task_modules": {"classification": loud[1]}}
    poison = teacher(context, "cat-lab", "cat").model_copy(update=modules)
    cat, dog = receive(context, poison), receive(context, teacher(context, "dog-lab", "dog"))
    merges, submissions = context.registry.merges, context.registry.submissions
    reconcile(context, until=lambda: merges.all(MergeState.MERGED))
    refused = submissions.get(cat)
    assert refused.state is SubmissionState.REFUSED
    assert "puts out NaN or Inf for an image" in refused.reason or "range: " in refused.reason
    assert [merge.submission_id for merge in merges.all()] == [dog]


FAULTS = (
    ValueError("no number"),
    np.linalg.LinAlgError("svd did not converge"),
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
)


TASKS = ("admit", "probe", "room", "decide", "inspect", "commit", "head", "open")
EACH = [*zip(TASKS, FAULTS * 2, strict=True), *(("scan", fault) for fault in FAULTS)]


@pytest.mark.parametrize(("task", "fault"), EACH)
def test_a_fault_of_any_kind_in_any_task_is_passed_over(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch, task: str, fault: Exception
) -> None:
    """Once each: what is tried again goes on, and the net is founded all the same."""
    left = [fault]

    def once(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object, **named: object) -> object:
            if left:
                raise left.pop()
            return real(*args, **named)

        monkeypatch.setattr(owner, name, call)

    match task:
        case "admit":
            once(reconciler, "admit")
        case "probe":
            once(probe, "probe_job")
        case "room":
            once(CoordinatorContext, "operations")
        case "decide":
            once(context.registry.merges, "queue")
        case "inspect":
            once(judge, "inspection_job")
        case "commit":
            once(context.registry.versions, "commit")
        case "head":
            once(context.registry.versions, "head")
        case "open":
            once(context.registry.merges, "open")
        case "scan":
            once(context.registry.submissions, "undecided")
    receive(context, teacher(context, "cat-lab", "cat"))
    merges = context.registry.merges
    with capture_logs() as logs:
        reconcile(context, until=lambda: merges.all(MergeState.MERGED))
    assert not left
    assert len(faults(logs)) == 1


@pytest.mark.parametrize("faults", [0, 1, 5, 2000])
def test_a_pause_grows_up_to_a_minute_however_often_work_fails(faults: int) -> None:
    assert pause_after(faults, 0.5) == min(0.5 * 2.0 ** min(faults, 20), MAX_PAUSE_SECONDS)
    assert pause_after(faults, 3600.0) == MAX_PAUSE_SECONDS


def test_what_ended_during_a_look_is_not_started_again(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(context, teacher(context, "cat-lab", "cat"))
    merges, everything = context.registry.merges, context.registry.submissions.all
    inspected: list[str] = []
    inspecting = threading.Event()

    class Counting(InThisProcess):
        async def inspect(self, job: InspectionJob) -> Inspection:
            inspected.append(job.merge_id)
            inspecting.set()
            return await super().inspect(job)

    def look_that_takes_longer_than_the_merge(*states: SubmissionState) -> list[Submission]:
        if inspecting.is_set() and not merges.all(MergeState.MERGED):
            while not merges.all(MergeState.MERGED):
                time.sleep(0.01)
            time.sleep(0.3)
        return everything(*states)

    monkeypatch.setattr(context.registry.submissions, "all", look_that_takes_longer_than_the_merge)
    with capture_logs() as logs:
        reconcile(context, jobs=Counting(), until=lambda: merges.all(MergeState.MERGED))
        reconcile(context, jobs=Counting(), until=lambda: not merges.open())
    assert inspected == ["mrg-0001"]
    assert not [entry for entry in logs if entry["log_level"] not in ("info", "debug")]


def test_a_merge_that_has_ended_runs_no_job(context: CoordinatorContext) -> None:
    receive(context, teacher(context, "cat-lab", "cat"))
    merges = context.registry.merges
    reconcile(context, until=lambda: merges.all(MergeState.MERGED))
    dog = receive(context, teacher(context, "dog-lab", "dog"))
    context.registry.submissions.set_state(dog, SubmissionState.ADMITTED)
    merge = merges.create(dog, "dog", "classification", OperationKind.NEW_CATEGORY)
    context.end(merge, "dog-lab", MergeState.FAILED, "no adapter")
    asyncio.run(merge_runner(context).carry(merge.id))
    assert merges.get(merge.id).reason == "no adapter"


def test_a_merge_that_is_rejected_during_its_inspection_is_not_merged(
    context: CoordinatorContext,
) -> None:
    class Slow(InThisProcess):
        async def inspect(self, job: InspectionJob) -> Inspection:
            inspection = await super().inspect(job)
            context.registry.merges.decide(job.merge_id, "reject", "wrong labels")
            return inspection

    receive(context, teacher(context, "cat-lab", "cat"))
    merges = context.registry.merges
    reconcile(
        context, jobs=Slow(), until=lambda: merges.all(MergeState.REJECTED, MergeState.MERGED)
    )
    (merge,) = merges.all()
    assert (merge.state, merge.reason) == (
        MergeState.REJECTED,
        "rejected by the operator: wrong labels",
    )
    assert context.head() is None


def test_a_submission_without_room_never_has_a_merge_to_carry(context: CoordinatorContext) -> None:
    registry = context.registry
    cat = receive(context, teacher(context, "cat-lab", "cat"))
    registry.submissions.set_state(cat, SubmissionState.ADMITTED)
    opened: list[object] = []
    registry.subscribe(lambda _: opened.extend(registry.merges.open()))
    context.fail_all(registry.submissions.get(cat), "growth: there is no room")
    (merge,) = registry.merges.all()
    assert (merge.state, merge.reason) == (MergeState.FAILED, "growth: there is no room")
    assert opened == []
    (event,) = registry.events.after("cat-lab", 0, 10)
    assert event.kind == "merge"


def test_a_task_that_is_rolled_back_while_its_adapter_is_learned_is_named(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    asked = context.registry.evaluations.of_merge(merge.id)
    assert asked is not None
    submission = context.registry.submissions.get(merge.submission_id)
    with pytest.raises(ConflictError, match="'segmentation' was rolled back"):
        ask(
            context,
            replace(merge, task="segmentation"),
            submission,
            dict(asked.request.candidates),
            turn=2,
            refinement=None,
        )
