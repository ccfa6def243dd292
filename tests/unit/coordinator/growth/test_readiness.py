from __future__ import annotations

import dataclasses

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
    site: str = "",
) -> OpenMerge:
    operation = Operation(kind, submission, task)
    return OpenMerge(
        f"{submission}/{task}", submission, site or submission, operation, state, released
    )


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


def of_one_lab(count: int, state: MergeState = MergeState.QUEUED) -> list[OpenMerge]:
    kind = OperationKind.NEW_CATEGORY
    return [
        merge(f"many-{state}-{index}", kind, state=state, site="many") for index in range(count)
    ]


def test_a_merge_is_not_behind_a_thousand_of_one_lab() -> None:
    merges = [*of_one_lab(1000), CAT]
    assert ready(merges, ["classification"], 2) == [merges[0].id, merges[1].id, CAT.id]


def test_jobs_that_run_count_and_other_states_do_not() -> None:
    running = of_one_lab(1, MergeState.DISTILLING)
    evaluating = of_one_lab(50, MergeState.EVALUATING)
    queued = of_one_lab(3)
    assert ready([*running, *evaluating, *queued], ["classification"], 2) == [
        each.id for each in (*running, *evaluating, queued[0])
    ]


def test_what_needs_no_job_needs_no_turn() -> None:
    direct = [merge(f"d{index}", OperationKind.CONNECT, site="many") for index in range(5)]
    assert ready([*of_one_lab(2, MergeState.DISTILLING), *direct], ["classification"], 2)[2:] == [
        each.id for each in direct
    ]


def test_what_the_operator_has_decided_is_ended_at_once() -> None:
    *waiting, last = of_one_lab(10)
    rejected = dataclasses.replace(last, decided=True)
    assert rejected.id in ready([*waiting, rejected], ["classification"], 2)
