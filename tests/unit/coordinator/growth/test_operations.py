from __future__ import annotations

import pytest

from rootstock.coordinator.growth.operations import Operation, OperationKind, Refusal, decide
from tests.support.named_blobs import BOTH, net_of, teacher


@pytest.mark.parametrize(
    ("held", "category", "brought", "expected"),
    [
        ((), "cat", ("classification",), [Operation(OperationKind.FOUND, "cat", "classification")]),
        (
            (),
            "cat",
            ("counting", "classification"),
            [
                Operation(OperationKind.FOUND, "cat", "classification"),
                Operation(OperationKind.NEW_TASK, "cat", "counting"),
            ],
        ),
        (
            ("classification",),
            "cat",
            ("classification",),
            [Operation(OperationKind.NEW_CATEGORY, "cat", "classification")],
        ),
        (
            ("counting",),
            "cat",
            ("classification", "counting"),
            [
                Operation(OperationKind.NEW_CATEGORY, "cat", "counting"),
                Operation(OperationKind.NEW_TASK, "cat", "classification"),
            ],
        ),
        (
            ("classification", "counting"),
            "cat",
            ("classification", "counting"),
            [
                Operation(OperationKind.NEW_CATEGORY, "cat", "classification"),
                Operation(OperationKind.NEW_CATEGORY, "cat", "counting"),
            ],
        ),
    ],
)
def test_decides_in_the_plans_order(
    held: tuple[str, ...], category: str, brought: tuple[str, ...], expected: list[Operation]
) -> None:
    tree = net_of(*held) if held else None
    assert expected == decide(tree, teacher(category, *brought), BOTH)


@pytest.mark.parametrize(
    ("category", "brought", "value", "remedy"),
    [
        ("dog", ("classification",), "'dog' is in the net", "another category name"),
        ("cat", ("segmentation",), "'segmentation'", "have the coordinator's operator add"),
        ("cat", ("counting",), "'counting'", "a task that the net knows"),
    ],
)
def test_refuses_with_value_and_remedy(
    category: str, brought: tuple[str, ...], value: str, remedy: str
) -> None:
    refusal = decide(net_of("classification"), teacher(category, *brought), BOTH)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("growth: ")
    assert value in refusal.reason
    assert remedy in refusal.reason


def test_refuses_a_category_that_is_on_its_way_and_no_other() -> None:
    tree = net_of("classification")
    underway = [Operation(OperationKind.NEW_CATEGORY, "cat", "classification")]
    refusal = decide(tree, teacher("cat", "classification"), BOTH, underway)
    assert isinstance(refusal, Refusal)
    assert "being merged" in refusal.reason
    assert [Operation(OperationKind.NEW_CATEGORY, "cow", "classification")] == decide(
        tree, teacher("cow", "classification"), BOTH, underway
    )


def test_a_task_that_is_on_its_way_is_joined_rather_than_brought_twice() -> None:
    tree = net_of("classification")
    underway = [
        Operation(OperationKind.NEW_CATEGORY, "cat", "classification"),
        Operation(OperationKind.NEW_TASK, "cat", "counting"),
    ]
    assert decide(tree, teacher("cow", "classification", "counting"), BOTH, underway) == [
        Operation(OperationKind.NEW_CATEGORY, "cow", "classification"),
        Operation(OperationKind.NEW_CATEGORY, "cow", "counting"),
    ]


def test_a_second_teacher_of_a_category_needs_a_flag_and_gets_a_name_of_its_own() -> None:
    tree = net_of("classification")
    again = teacher("dog", "classification").model_copy(update={"software": {"try": "2"}})
    flagged = again.model_copy(update={"new_version": True})

    def owner(category: str) -> str | None:
        return "dog-lab" if category.startswith("dog") else None

    refusal = decide(tree, again, BOTH, owner=owner)
    assert isinstance(refusal, Refusal)
    assert "as 'dog-v2', set new_version = true" in refusal.reason
    assert decide(tree, flagged, BOTH, owner=owner) == [
        Operation(OperationKind.NEW_CATEGORY, "dog-v2", "classification")
    ]
    underway = [Operation(OperationKind.NEW_CATEGORY, "dog-v2", "classification")]
    assert decide(tree, flagged, BOTH, underway, owner) == [
        Operation(OperationKind.NEW_CATEGORY, "dog-v3", "classification")
    ]
    # Another lab's dog is a clash, flag or no flag.
    clash = decide(tree, flagged.model_copy(update={"site": "cat-lab"}), BOTH, owner=owner)
    assert isinstance(clash, Refusal)
    assert "from another lab (dog-lab)" in clash.reason
    assert "another category name" in clash.reason
