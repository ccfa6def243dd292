from __future__ import annotations

import pytest

from common.nets.calibration import Calibration
from common.nets.graph import NetTree
from coordinator.growth import Found, NewCategory, NewTask, Refusal, decide, grown
from tests.unit.growth.examples import plan, teacher

BOTH = plan("classification", "counting")


def net_of(*tasks: str) -> NetTree:
    """Found a net with the dog lab's teacher; every further task module comes along."""
    manifest = teacher("dog", *tasks)
    operations = decide(None, manifest, BOTH)
    assert not isinstance(operations, Refusal)
    tree = None
    for operation in operations:
        tree = grown(
            tree,
            operation,
            manifest,
            BOTH,
            manifest_digest=manifest.content_digest(),
            adapter=None,
            calibration=Calibration(),
            error=5.0,
        )
    assert tree is not None
    return tree


@pytest.mark.parametrize(
    ("held", "category", "brought", "expected"),
    [
        ((), "cat", ("classification",), [Found("cat", "classification")]),
        (
            (),
            "cat",
            ("counting", "classification"),
            [Found("cat", "classification"), NewTask("cat", "counting")],
        ),
        (
            ("classification",),
            "cat",
            ("classification",),
            [NewCategory("cat", "classification")],
        ),
        (
            ("counting",),
            "cat",
            ("classification", "counting"),
            [NewCategory("cat", "counting"), NewTask("cat", "classification")],
        ),
        (
            ("classification", "counting"),
            "cat",
            ("classification", "counting"),
            [NewCategory("cat", "classification"), NewCategory("cat", "counting")],
        ),
    ],
)
def test_decides_in_the_plans_order(held, category, brought, expected):
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
def test_refuses_with_value_and_remedy(category, brought, value, remedy):
    refusal = decide(net_of("classification"), teacher(category, *brought), BOTH)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith("growth: ")
    assert value in refusal.reason
    assert remedy in refusal.reason


def test_refuses_a_category_that_is_on_its_way_and_no_other():
    tree = net_of("classification")
    underway = {("cat", "classification")}
    refusal = decide(tree, teacher("cat", "classification"), BOTH, underway)
    assert isinstance(refusal, Refusal)
    assert "being merged" in refusal.reason
    assert [NewCategory("cow", "classification")] == decide(
        tree, teacher("cow", "classification"), BOTH, underway
    )
