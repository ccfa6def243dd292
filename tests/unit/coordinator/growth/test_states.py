"""Every pair of states, against DESIGN section 4."""

from __future__ import annotations

import itertools

import pytest

from rootstock.common.errors import ConflictError
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.states import check_merge, check_submission
from rootstock.coordinator.registry import MergeState, SubmissionState

SUBMISSION = {
    ("receiving", "received"),
    ("received", "admitted"),
    ("received", "refused"),
}
MERGE = {
    ("queued", "distilling"),
    ("distilling", "evaluating"),
    ("evaluating", "distilling"),
    ("evaluating", "merged"),
    ("evaluating", "reviewing"),
    ("reviewing", "merged"),
    ("reviewing", "rejected"),
    ("reviewing", "failed"),
    ("queued", "rejected"),
    ("distilling", "rejected"),
    ("evaluating", "rejected"),
    ("queued", "failed"),
    ("distilling", "failed"),
    ("evaluating", "failed"),
    ("merged", "rolled_back"),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(SubmissionState, repeat=2)))
def test_submission(old: SubmissionState, new: SubmissionState) -> None:
    if (old.value, new.value) in SUBMISSION:
        check_submission("sub-0001", old, new)
    else:
        with pytest.raises(ConflictError, match=f"sub-0001 is '{old}' and cannot become '{new}'"):
            check_submission("sub-0001", old, new)


@pytest.mark.parametrize("operation", OperationKind)
@pytest.mark.parametrize(("old", "new"), list(itertools.product(MergeState, repeat=2)))
def test_merge(old: MergeState, new: MergeState, operation: OperationKind) -> None:
    direct = (
        {("queued", "merged"), ("queued", "reviewing")} if operation != "new-category" else set()
    )
    if (old.value, new.value) in MERGE | direct:
        check_merge("mrg-0001", old, new, operation)
    else:
        with pytest.raises(ConflictError, match=f"mrg-0001 is '{old}' and cannot become '{new}'"):
            check_merge("mrg-0001", old, new, operation)
