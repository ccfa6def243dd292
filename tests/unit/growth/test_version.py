from __future__ import annotations

import pytest

from common.errors import ConflictError, NotFoundError
from common.nets.calibration import Calibration
from coordinator.growth import Found, NewCategory, NewTask, next_version
from tests.unit.growth.examples import adapter, plan, teacher

IDENTITY = Calibration()
BOTH = plan("classification", "counting")
NOW = "2026-01-01T00:00:00+00:00"


def grow(tree, parent, operation, manifest, joined_by=None, error=5.0, calibration=IDENTITY):
    return next_version(
        tree,
        parent,
        operation,
        manifest,
        BOTH,
        number=1 if parent is None else parent.number + 1,
        manifest_digest=manifest.content_digest(),
        adapter=joined_by,
        calibration=calibration,
        error=error,
        merge={"id": "mrg-0001", "operation": operation.name},
        created_at=NOW,
    )


@pytest.fixture
def founded():
    dog = teacher("dog", "classification")
    return grow(None, None, Found("dog", "classification"), dog)


def test_the_first_version_joins_the_teachers_own_modules(founded):
    tree, commit = founded
    assert (commit.number, commit.parent) == (1, None)
    assert tree.content_digest() == commit.tree
    assert tree.edge("dog", "classification").adapter is None
    assert commit.merge == {"id": "mrg-0001", "operation": "found"}


def test_a_child_holds_every_digest_of_its_parent_and_its_commit(founded):
    tree, commit = founded
    cat = teacher("cat", "classification")
    calibration = Calibration(scale=2.0, bias=-0.5)
    child, later = grow(
        tree, commit, NewCategory("cat", "classification"), cat, adapter("h"), 7.0, calibration
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
    assert (2, commit.content_digest()) == (later.number, later.parent)
    assert cat.content_digest() == child.category_modules["cat"].submission


def test_a_second_task_of_one_submission_shares_its_category_module(founded):
    tree, commit = founded
    cat = teacher("cat", "classification", "counting")
    tree, commit = grow(tree, commit, NewCategory("cat", "classification"), cat, adapter("h"))
    tree, commit = grow(tree, commit, NewTask("cat", "counting"), cat)
    assert cat.task_modules["counting"] == tree.task_modules["counting"].blob
    assert tree.edge("cat", "counting").adapter is None
    with pytest.raises(NotFoundError, match="dog"):
        tree.edge("dog", "counting")


def test_refuses_what_another_submission_did_in_the_meantime(founded):
    tree, commit = founded
    with pytest.raises(ConflictError, match="founded by another"):
        grow(tree, commit, Found("cat", "classification"), teacher("cat", "classification"))
    other = teacher("dog", "classification", "counting")
    with pytest.raises(ConflictError, match="dog"):
        grow(
            tree,
            commit,
            NewCategory("dog", "classification"),
            other.model_copy(update={"category_module": adapter("x").blob}),
        )


def test_a_task_module_joins_no_category_module_of_another_submission(founded):
    tree, commit = founded
    cat = teacher("cat", "classification", "counting")
    tree, commit = grow(tree, commit, NewCategory("cat", "classification"), cat, adapter("h"))
    other = cat.model_copy(update={"category_module": adapter("x").blob})
    with pytest.raises(ConflictError, match="'cat' came with another submission"):
        grow(tree, commit, NewTask("cat", "counting"), other)
    same_bytes = cat.model_copy(update={"site": "other-lab"})
    with pytest.raises(ConflictError, match="'cat' came with another submission"):
        grow(tree, commit, NewTask("cat", "counting"), same_bytes)


def test_a_join_needs_both_ends(founded):
    tree, commit = founded
    cat = teacher("cat", "counting")
    with pytest.raises(NotFoundError, match="counting"):
        grow(tree, commit, NewCategory("cat", "counting"), cat)
    with pytest.raises(NotFoundError, match="cat"):
        grow(tree, commit, NewTask("cat", "counting"), cat)
    with pytest.raises(ConflictError, match="not founded"):
        grow(None, None, NewCategory("cat", "counting"), cat)
