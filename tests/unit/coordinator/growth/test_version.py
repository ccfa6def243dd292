from __future__ import annotations

import pytest

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import NetTree
from rootstock.common.weights.manifest import AdapterEntry, TeacherManifest
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.version import grown
from tests.support.named_blobs import adapter, plan, teacher

IDENTITY = Calibration()
BOTH = plan("classification", "counting")


def grow(
    tree: NetTree | None,
    operation: Operation,
    manifest: TeacherManifest,
    joined_by: AdapterEntry | None = None,
    error: float = 5.0,
    calibration: Calibration = IDENTITY,
) -> NetTree:
    return grown(
        tree,
        operation,
        manifest,
        BOTH,
        manifest_digest=manifest.content_digest(),
        adapter=joined_by,
        calibration=calibration,
        error=error,
    )


@pytest.fixture
def founded() -> NetTree:
    dog = teacher("dog", "classification")
    return grow(None, Operation(OperationKind.FOUND, "dog", "classification"), dog)


def test_the_first_version_joins_the_teachers_own_modules(founded: NetTree) -> None:
    tree = founded
    assert tree.edge("dog", "classification").adapter is None


def test_a_child_holds_every_digest_of_its_parent(founded: NetTree) -> None:
    tree = founded
    cat = teacher("cat", "classification")
    calibration = Calibration(scale=2.0, bias=-0.5)
    child = grow(
        tree,
        Operation(OperationKind.NEW_CATEGORY, "cat", "classification"),
        cat,
        adapter("h"),
        7.0,
        calibration,
    )
    assert tree.digests() < child.digests()
    assert {cat.category_module.digest, adapter("h").blob.digest} == (
        child.digests() - tree.digests()
    )
    assert child.edge("cat", "classification").error == 7.0
    assert child.edge("cat", "classification").calibration == calibration
    assert child.edge("dog", "classification").calibration.identity
    assert tree.edges[0] in child.edges
    # The transplanted teacher's own task module stays out: the net has one already.
    assert tree.task_modules == child.task_modules
    assert cat.content_digest() == child.category_modules["cat"].submission


def test_a_second_task_of_one_submission_shares_its_category_module(founded: NetTree) -> None:
    tree = founded
    cat = teacher("cat", "classification", "counting")
    tree = grow(
        tree, Operation(OperationKind.NEW_CATEGORY, "cat", "classification"), cat, adapter("h")
    )
    tree = grow(tree, Operation(OperationKind.NEW_TASK, "cat", "counting"), cat)
    assert cat.task_modules["counting"] == tree.task_modules["counting"].blob
    assert tree.edge("cat", "counting").adapter is None
    with pytest.raises(NotFoundError, match="dog"):
        tree.edge("dog", "counting")


def test_refuses_what_another_submission_did_in_the_meantime(founded: NetTree) -> None:
    tree = founded
    with pytest.raises(ConflictError, match="founded by another"):
        grow(
            tree,
            Operation(OperationKind.FOUND, "cat", "classification"),
            teacher("cat", "classification"),
        )
    other = teacher("dog", "classification", "counting")
    with pytest.raises(ConflictError, match="dog"):
        grow(
            tree,
            Operation(OperationKind.NEW_CATEGORY, "dog", "classification"),
            other.model_copy(update={"category_module": adapter("x").blob}),
        )


def test_a_task_module_joins_no_category_module_of_another_submission(founded: NetTree) -> None:
    tree = founded
    cat = teacher("cat", "classification", "counting")
    tree = grow(
        tree, Operation(OperationKind.NEW_CATEGORY, "cat", "classification"), cat, adapter("h")
    )
    other = cat.model_copy(update={"category_module": adapter("x").blob})
    with pytest.raises(ConflictError, match="'cat' came with another submission"):
        grow(tree, Operation(OperationKind.NEW_TASK, "cat", "counting"), other)
    same_bytes = cat.model_copy(update={"site": "other-lab"})
    with pytest.raises(ConflictError, match="'cat' came with another submission"):
        grow(tree, Operation(OperationKind.NEW_TASK, "cat", "counting"), same_bytes)


def test_a_join_needs_both_ends(founded: NetTree) -> None:
    tree = founded
    cat = teacher("cat", "counting")
    with pytest.raises(NotFoundError, match="counting"):
        grow(tree, Operation(OperationKind.NEW_CATEGORY, "cat", "counting"), cat)
    with pytest.raises(NotFoundError, match="cat"):
        grow(tree, Operation(OperationKind.NEW_TASK, "cat", "counting"), cat)
    with pytest.raises(ConflictError, match="not founded"):
        grow(None, Operation(OperationKind.NEW_CATEGORY, "cat", "counting"), cat)
