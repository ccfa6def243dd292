from __future__ import annotations

from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.planning import GrowthPlan, plan_growth
from tests.support.named_blobs import BOTH, net_of, plan, teacher


def waves(found: GrowthPlan) -> list[tuple[int, str, str, str]]:
    return [(each.wave, each.operation, each.category, each.task) for each in found.operations]


def test_a_net_to_be_founded_grows_in_waves() -> None:
    found = plan_growth(
        None,
        [],
        [
            ("sub-0001", teacher("dog", "classification", "counting")),
            ("sub-0002", teacher("cat", "classification")),
            ("sub-0003", teacher("cow", "classification", "counting")),
        ],
        BOTH,
    )
    assert waves(found) == [
        (1, "found", "dog", "classification"),
        (2, "new-task", "dog", "counting"),
        (2, "new-category", "cat", "classification"),
        (2, "new-category", "cow", "classification"),
        (3, "new-category", "cow", "counting"),  # its task module comes in the second wave
    ]
    assert found.operations[0].site == "dog-lab"
    assert found.refusals == ()
    assert found.unjoined == (("cat", "counting"),)


def test_open_merges_come_first_and_what_has_no_room_is_named() -> None:
    dog = teacher("dog", "classification", "counting")
    found = plan_growth(
        None,
        [
            ("sub-0001", dog, Operation(OperationKind.FOUND, "dog", "classification")),
            ("sub-0001", dog, Operation(OperationKind.NEW_TASK, "dog", "counting")),
        ],
        [("sub-0002", teacher("dog", "classification").model_copy(update={"site": "x-lab"}))],
        BOTH,
    )
    assert waves(found) == [
        (1, "found", "dog", "classification"),
        (2, "new-task", "dog", "counting"),
    ]
    (refusal,) = found.refusals
    assert (refusal.submission, refusal.site) == ("sub-0002", "x-lab")
    assert "from another lab (dog-lab)" in refusal.reason


def test_nothing_is_to_come_for_a_net_at_rest() -> None:
    tree = net_of("classification")
    found = plan_growth(tree, [], [], plan("classification"))
    assert (found.operations, found.refusals, found.unjoined) == ((), (), ())
