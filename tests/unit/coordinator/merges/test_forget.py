from __future__ import annotations

import pytest
import torch

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.weights.manifest import SharedSamples
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.forget import forget_samples
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.registry import MergeState, SubmissionState
from rootstock.coordinator.service.messages import watch_response
from tests.support.coordinator_context import receive, teacher


def test_samples_go_for_good_once_no_merge_learns_from_them(context: CoordinatorContext) -> None:
    area = context.store.area(samples_area("sub-0001"))
    blob = put_tensors(area, {"images": torch.zeros(4, 3, 32, 32), "labels": torch.ones(4)})
    manifest = teacher(context, "cat-lab", "cat")
    shares = manifest.model_copy(update={"shared_samples": SharedSamples(count=4, blob=blob)})
    submission = receive(context, shares)
    assert submission == "sub-0001"
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(
        submission, "cat", "classification", OperationKind.NEW_CATEGORY
    )
    with pytest.raises(ConflictError, match=f"merge {merge.id} may still learn from the samples"):
        forget_samples(context, submission)
    assert area.has(blob.digest)
    context.registry.merges.advance(merge.id, MergeState.FAILED)
    assert forget_samples(context, submission) == 4
    assert not area.has(blob.digest)
    assert list(context.store.areas("samples")) == []
    assert context.store.has(shares.category_module.digest)
    events = [watch_response(event) for event in context.registry.events.after("cat-lab", 0, 10)]
    assert [(e.samples.submission_id, e.samples.count) for e in events] == [(submission, 4)]
    with pytest.raises(NotFoundError, match="has no samples here"):
        forget_samples(context, submission)
    with pytest.raises(NotFoundError, match="no such submission"):
        forget_samples(context, "sub-0009")


def test_a_submission_without_samples_has_none_to_forget(context: CoordinatorContext) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))
    with pytest.raises(NotFoundError, match="nothing to forget"):
        forget_samples(context, submission)
