"""What the operator has revoked does not come in again, whoever ships it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rootstock.common.errors import SchemaError
from rootstock.coordinator.config import AdmissionConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.merges.revoked import check_revoked
from rootstock.coordinator.registry import MergeState, SubmissionState
from tests.support import coordinator_context
from tests.support.coordinator_context import receive
from tests.support.merges import reconcile
from tests.support.named_blobs import teacher


def test_revoked_modules_and_manifests_are_refused() -> None:
    manifest, other = teacher("cat", "classification"), teacher("dog", "classification")
    document = manifest.canonical()
    revoked = (other.category_module.digest, other.content_digest())
    check_revoked(manifest, document, revoked)
    for digest in (
        manifest.category_module.digest,
        manifest.task_modules["classification"].digest,
        manifest.content_digest(),
    ):
        with pytest.raises(SchemaError, match=f"^revoked: {digest} is not let in any more"):
            check_revoked(manifest, document, (*revoked, digest))


@pytest.mark.parametrize("admitted", [False, True])
def test_what_was_shipped_before_it_was_revoked_is_not_let_in_either(
    context: CoordinatorContext, admitted: bool
) -> None:
    """A coordinator reads the setting at its start, and finds what it has received before."""
    manifest = coordinator_context.teacher(context, "cat-lab", "cat")
    submission, submissions = receive(context, manifest), context.registry.submissions
    if admitted:
        submissions.set_state(submission, SubmissionState.ADMITTED)
    revoked = AdmissionConfig(revoked=(manifest.content_digest(),))
    config = context.config.model_copy(update={"admission": revoked})
    merges = context.registry.merges
    reconcile(
        replace(context, config=config),
        until=lambda: merges.all() or submissions.get(submission).state is SubmissionState.REFUSED,
    )
    reasons = [merge.reason for merge in merges.all(MergeState.FAILED)] if admitted else []
    (reason,) = reasons or [submissions.get(submission).reason]
    assert reason.startswith("revoked: ")
    assert context.head() is None
