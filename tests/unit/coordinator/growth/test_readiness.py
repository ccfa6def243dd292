from __future__ import annotations

import pytest

from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.readiness import OpenMerge, ready
from rootstock.coordinator.growth.states import MergeState


def merge(
    submission: str,
    kind: OperationKind,
    task: str = "classification",
    *,
    state: MergeState = MergeState.QUEUED,
    released: bool = True,
) -> OpenMerge:
    operation = Operation(kind, submission, task)
    return OpenMerge(f"{submission}/{task}", submission, operation, state, released)


CAT = merge("cat", OperationKind.NEW_CATEGORY)
CAT_SEGMENTATION = merge("cat", OperationKind.NEW_TASK, "segmentation")
DOG_SEGMENTATION = merge("dog", OperationKind.NEW_CATEGORY, "segmentation")
DOG_DISTILLING = merge(
    "dog", OperationKind.NEW_CATEGORY, "segmentation", state=MergeState.DISTILLING
)
HELD_BACK = merge("cow", OperationKind.NEW_CATEGORY, released=False)


@pytest.mark.parametrize(
    ("merges", "tasks", "expected"),
    [
        ([], [], []),
        ([CAT, HELD_BACK], ["classification"], [CAT]),
        # A task waits for the category module that it comes with.
        ([CAT, CAT_SEGMENTATION], ["classification"], [CAT]),
        ([CAT_SEGMENTATION], ["classification"], [CAT_SEGMENTATION]),
        # A category waits for a task on its way, and goes on where that came to nothing.
        ([CAT_SEGMENTATION, DOG_SEGMENTATION], [], [CAT_SEGMENTATION]),
        ([DOG_SEGMENTATION], [], [DOG_SEGMENTATION]),
        (
            [CAT_SEGMENTATION, DOG_SEGMENTATION],
            ["segmentation"],
            [CAT_SEGMENTATION, DOG_SEGMENTATION],
        ),
        # What has begun is carried on.
        ([CAT_SEGMENTATION, DOG_DISTILLING], [], [CAT_SEGMENTATION, DOG_DISTILLING]),
    ],
)
def test_which_merges_can_run(
    merges: list[OpenMerge], tasks: list[str], expected: list[OpenMerge]
) -> None:
    assert ready(merges, tasks) == [each.id for each in expected]
