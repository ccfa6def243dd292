"""Private areas at a coordinator's start: what is left over goes, what lay elsewhere moves in."""

from __future__ import annotations

import torch

from rootstock.common.weights.manifest import SharedSamples, TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.areas import move_samples, sweep_areas
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.forget import forget_samples
from rootstock.coordinator.paths import job_area, samples_area
from rootstock.coordinator.registry import MergeState, SubmissionState
from tests.support.coordinator_context import receive, teacher


def sharing(context: CoordinatorContext, site: str, samples: SharedSamples) -> TeacherManifest:
    category = site.removesuffix("-lab")
    return teacher(context, site, category).model_copy(update={"shared_samples": samples})


def test_samples_of_an_earlier_version_move_out_of_the_common_store(
    context: CoordinatorContext,
) -> None:
    tensors = {"images": torch.zeros(4, 3, 32, 32), "labels": torch.ones(4)}
    same = SharedSamples(count=4, blob=put_tensors(context.store, tensors))
    for site in ("cat-lab", "dog-lab"):
        receive(context, sharing(context, site, same))
    gone = SharedSamples(count=4, blob=same.blob.model_copy(update={"digest": "0" * 64}))
    receive(context, sharing(context, "cow-lab", gone))  # forgotten before
    receive(context, teacher(context, "pig-lab", "pig"))
    digest = same.blob.digest
    plan = context.plan.content_digest()
    assert move_samples(context.registry, context.store, plan) == 2
    assert not context.store.has(digest)
    assert list(context.store.areas("samples")) == ["sub-0001", "sub-0002"]
    # What a lab wants back is its own submission's.
    assert forget_samples(context, "sub-0001") == 4
    assert context.store.area(samples_area("sub-0002")).has(digest)
    # Once: what has the same digest later is something else.
    put_tensors(context.store, tensors)
    assert move_samples(context.registry, context.store, plan) == 0
    assert context.store.has(digest)


def test_areas_that_nothing_needs_are_dropped(context: CoordinatorContext) -> None:
    registry, store = context.registry, context.store
    states = dict.fromkeys(("cat", "dog", "cow"), SubmissionState.ADMITTED)
    states["dog"] = SubmissionState.REFUSED
    ids = {}
    for category, state in states.items():
        ids[category] = receive(context, teacher(context, f"{category}-lab", category))
        registry.submissions.set_state(ids[category], state)
    pig = teacher(context, "pig-lab", "pig")
    registry.sites.join("pig-lab", b"p" * 32)
    ids["pig"] = registry.uploads.begin(pig, pig.canonical(), b"signature", open_limit=4).id
    for submission in (*ids.values(), "sub-0099"):
        store.area(samples_area(submission)).put_bytes(b"images")
    store.area("samples/cats").put_bytes(b"of an operator who has named a folder in use")
    merges = [
        registry.merges.create(ids["cat"], "cat", task, OperationKind.NEW_CATEGORY)
        for task in ("queued", "distilling", "evaluating", "failed")
    ]
    for merge in merges[1:]:
        registry.merges.advance(merge.id, MergeState.DISTILLING)
    registry.merges.advance(merges[2].id, MergeState.EVALUATING)
    registry.merges.advance(merges[3].id, MergeState.FAILED)
    for merge in merges:
        store.area(job_area(merge.id)).put_bytes(b"a checkpoint")
    left = [
        *(job_area(merge.id) for merge in merges[2:]),
        samples_area(ids["dog"]),
        samples_area("sub-0099"),
    ]
    assert sorted(sweep_areas(registry, store)) == sorted(left)
    assert list(store.areas("samples")) == [
        "cats",
        *sorted(ids[name] for name in ("cat", "cow", "pig")),
    ]
    assert list(store.areas("jobs")) == [merge.id for merge in merges[:2]]
    assert sweep_areas(registry, store) == []
