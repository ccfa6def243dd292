from __future__ import annotations

import asyncio
import hashlib
import struct
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rootstock.common.errors import StorageError
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.text import MAX_TEXT
from rootstock.coordinator.config import GrowthConfig
from rootstock.coordinator.context import CoordinatorContext, reason_text
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.probe import ProbeJob, ProbeResult
from rootstock.coordinator.merges import reconciler
from rootstock.coordinator.merges.pending import growth_plan
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import OPEN_MERGES, MergeState, SubmissionState
from rootstock.protos.rootstock.federation.v1 import federation_pb2
from tests.support.coordinator_context import ARCHITECTURE, receive, teacher
from tests.support.in_process_jobs import InThisProcess
from tests.support.merges import reconcile


def test_two_labs_with_one_category_found_one_net(context: CoordinatorContext) -> None:
    first = receive(context, teacher(context, "lab-one", "cat"))
    second = receive(context, teacher(context, "lab-two", "cat"))
    merges = context.registry.merges
    reconcile(context, until=lambda: len(merges.all(MergeState.MERGED, MergeState.FAILED)) == 2)
    merged, failed = merges.all()
    assert (first, MergeState.MERGED) == (merged.submission_id, merged.state)
    assert (second, MergeState.FAILED) == (failed.submission_id, failed.state)
    assert "'cat' is in the net already" in failed.reason
    tree = context.tree()
    assert tree is not None
    assert list(tree.category_modules) == ["cat"]
    assert merges.all(*OPEN_MERGES) == []


def test_a_copy_of_another_lab_s_module_is_refused_and_only_the_operator_hears_whose(
    context: CoordinatorContext,
) -> None:
    f, _ = initial_modules(ARCHITECTURE, context.plan.tasks, seed=5)
    own = {"category_module": put_tensors(context.store, f.state_dict())}
    submissions = context.registry.submissions
    with capture_logs() as logs:
        for site, category in (("cat-lab", "cat"), ("thief", "dog"), ("cat-lab", "lion")):
            manifest = teacher(context, site, category).model_copy(update=own)
            last = receive(context, manifest)
            reconcile(context, until=partial(is_decided, context, last))
    first, copy, again = submissions.all()
    assert (first.state, copy.state, again.state) == (
        SubmissionState.ADMITTED,
        SubmissionState.REFUSED,
        SubmissionState.ADMITTED,
    )
    assert copy.reason.startswith("copy: the category module")
    assert "cat-lab" not in copy.reason
    (said,) = [entry for entry in logs if entry["event"] == "submission.copied"]
    assert (said["site"], said["of"]) == ("thief", "cat-lab")


class SlowProbe(InThisProcess):
    """A probe of cat-lab's net that does not come to an end."""

    async def probe(self, job: ProbeJob) -> ProbeResult:
        if job.manifest.site == "cat-lab":
            await asyncio.Event().wait()
        return await super().probe(job)


def test_a_slow_probe_holds_up_no_decision_about_others(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "HOLD_SECONDS", 0.05)
    slow, dog = (receive(context, teacher(context, f"{name}-lab", name)) for name in ("cat", "dog"))
    merges = context.registry.merges
    reconcile(context, jobs=SlowProbe(), until=lambda: merges.all(MergeState.MERGED))
    assert [merge.submission_id for merge in merges.all()] == [dog]
    assert context.registry.submissions.get(slow).state is SubmissionState.RECEIVED


def is_decided(context: CoordinatorContext, submission: str) -> bool:
    state = context.registry.submissions.get(submission).state
    return state in (SubmissionState.ADMITTED, SubmissionState.REFUSED)


def test_a_header_that_no_message_can_repeat_is_refused(context: CoordinatorContext) -> None:
    """Half of a surrogate pair is JSON, and is neither UTF-8 nor protobuf."""
    header = rb'{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    data = struct.pack("<Q", len(header)) + header + b"0000"
    digest = hashlib.sha256(data).hexdigest()
    path = context.config.state / "blob"
    path.write_bytes(data)
    context.store.put_file(path, digest)
    honest = teacher(context, "cat-lab", "cat")
    lie = honest.category_module.model_copy(update={"digest": digest})
    submission = receive(context, honest.model_copy(update={"category_module": lie}))
    submissions = context.registry.submissions
    reconcile(context, until=lambda: submissions.get(submission).state is SubmissionState.REFUSED)
    assert r"\ud800" in submissions.get(submission).reason
    assert context.registry.events.after("cat-lab", 0, 10)


def test_a_store_that_fails_for_a_while_is_waited_for(
    context: CoordinatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    find, failures = context.store.local_path, [StorageError("the disk is full")] * 2

    def local_path(digest: str) -> Path:
        if failures:
            raise failures.pop()
        return find(digest)

    monkeypatch.setattr(context.store, "local_path", local_path)
    reconcile(context, until=lambda: context.registry.versions.head() is not None)
    assert context.registry.submissions.get(submission).state is SubmissionState.ADMITTED


@pytest.mark.parametrize("text", ["\ud800", "\x00", "x" * 10_000, "zwei\nZeilen"])
def test_every_reason_can_be_told(text: str) -> None:
    told = reason_text(text)
    assert federation_pb2.SubmissionStateChanged(reason=told).SerializeToString()
    assert len(told) <= MAX_TEXT
    assert "\x00" not in told
    assert reason_text("wrong β: 3 > 2\nlower it") == "wrong β: 3 > 2\nlower it"


def test_operations_are_held_until_the_operator_lets_the_net_grow(
    context: CoordinatorContext,
) -> None:
    held = replace(
        context, config=context.config.model_copy(update={"growth": GrowthConfig(automatic=False)})
    )
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    merges = context.registry.merges
    reconcile(held, until=lambda: len(merges.all()) == 1)
    (merge,) = merges.all()
    assert (merge.state, merge.released) == (MergeState.QUEUED, False)
    with NetReader(context.registry, context.store) as view:
        paths = StatePaths(context.config)
        paths.plan.parent.mkdir(parents=True, exist_ok=True)
        paths.plan.write_bytes(context.plan.canonical())
        (planned,) = growth_plan(view, context.config).operations
        assert (planned.wave, planned.operation, planned.submission) == (1, "found", submission)
        assert [released.id for released in merges.release()] == [merge.id]
        reconcile(held, until=lambda: merges.get(merge.id).state is MergeState.MERGED)
        assert growth_plan(view, context.config).operations == ()
