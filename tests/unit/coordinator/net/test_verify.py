from __future__ import annotations

import asyncio

import pytest

from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import Edge, NetTree
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.net.fingerprint import outputs, written
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.registry import Access, SubmissionState
from tests.support.coordinator_context import receive, teacher
from tests.support.founded_net import commit, found
from tests.support.merges import merge_runner


@pytest.fixture
def founded(context: CoordinatorContext) -> CoordinatorContext:
    found(context)
    return context


def rules(context: CoordinatorContext, number: int, key: bytes | None = None) -> list[str]:
    view = context.net
    return [p.rule for p in verify_version(view, number, key or context.key.public_key)]


def test_a_whole_version_has_no_problems(founded: CoordinatorContext) -> None:
    assert rules(founded, 1) == []
    tree = founded.tree()
    assert tree is not None
    commit(founded, tree)
    assert rules(founded, 2) == []


def test_a_join_that_answers_otherwise_than_its_record(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    record = {"category": "cat", "task": "classification", "adapter": None}
    right = written(outputs(tree, founded.store, "cat", "classification"))
    assert founded.net.commit(1).merge["probe"] == right
    for probe, expected in (
        (right, []),
        (" ".join(["0.5"] * 8), ["outputs are those of the recorded merge"]),
        ("nonsense", ["outputs are those of the recorded merge"]),
    ):
        commit(founded, tree, merge={**record, "probe": probe})
        head = founded.head()
        assert head is not None
        assert rules(founded, head.number) == expected
        founded.registry.versions.roll_back(head.number, "next try")


def test_a_join_that_answers_otherwise_than_when_it_was_added(founded: CoordinatorContext) -> None:
    """Another adapter under the same join: its digest is known, its bits are whole."""
    tree = founded.tree()
    assert tree is not None
    joined = tree.edges[0].model_copy(update={"calibration": Calibration(bias=1e-4)})
    record = {"category": "cat", "task": "classification", "adapter": None}
    changed = {**record, "calibration_scale": 1.0, "calibration_bias": 1e-4}
    commit(founded, tree.model_copy(update={"edges": (joined,)}), merge=changed)
    assert "outputs are the same in every later version, bit by bit" in rules(founded, 2)
    view = founded.net
    without = verify_version(view, 2, founded.key.public_key, probe=False)
    assert "outputs are" not in " ".join(problem.rule for problem in without)


def test_a_join_that_cannot_be_composed(founded: CoordinatorContext) -> None:
    """Every blob is whole, and the tree says of a module what its weights do not fit."""
    tree = founded.tree()
    assert tree is not None
    module = tree.category_modules["cat"]
    wider = module.architecture.model_copy(update={"settings": {"width": 8}})
    modules = {"cat": module.model_copy(update={"architecture": wider})}
    commit(founded, tree.model_copy(update={"category_modules": modules}))
    assert "every join can be composed" in rules(founded, 2)


def test_a_commit_by_another_key(founded: CoordinatorContext) -> None:
    other = SigningKey.generate().public_key
    assert rules(founded, 1, other) == ["commit and tree are signed"]


def test_a_version_that_lost_what_its_parent_holds(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    empty = NetTree(architecture=tree.architecture, tasks=tree.tasks)
    commit(founded, empty)
    assert rules(founded, 2) == [
        "a merge adds its join",
        "a child version holds every digest of its parent",
        "a child version joins whatever its parent joins, in the same way",
    ]


def test_a_join_that_changed(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    edge = Edge(category="cat", task="classification", error=99.0)
    commit(founded, tree.model_copy(update={"edges": (edge,)}))
    assert rules(founded, 2) == ["a child version joins whatever its parent joins, in the same way"]


def test_an_adapter_that_is_not_the_merge_s(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    record = {"category": "cat", "task": "classification", "adapter": "a" * 64}
    commit(founded, tree, merge=record)
    assert rules(founded, 2) == ["every adapter traces to a recorded merge"]


def test_a_calibration_that_is_not_the_merge_s(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    joined = tree.edges[0].model_copy(update={"calibration": Calibration(scale=3.0)})
    record = {"category": "cat", "task": "classification", "adapter": None}
    commit(founded, tree.model_copy(update={"edges": (joined,)}), merge=record)
    assert rules(founded, 2) == [
        "every calibration traces to a recorded merge",
        "a child version joins whatever its parent joins, in the same way",
        "outputs are the same in every later version, bit by bit",
    ]


def test_a_parent_that_is_not_the_one_before(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    commit(founded, tree, parent="b" * 64)
    assert rules(founded, 2) == ["a version's parent is the head of its day"]


def test_a_blob_that_changed_and_one_that_is_gone(founded: CoordinatorContext) -> None:
    tree = founded.tree()
    assert tree is not None
    first, second = sorted(tree.digests())
    path = founded.store.local_path(first)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    founded.store.local_path(second).unlink()
    assert rules(founded, 1) == ["every blob matches its digest", "every blob is reachable"]


def test_a_submission_that_its_site_did_not_sign(context: CoordinatorContext) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"))  # signed with b"signature"
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)
    runner = merge_runner(context)
    asyncio.run(runner.carry(merge.id))
    assert rules(context, 1) == ["every module traces to a signed submission"]


def test_a_submission_is_verified_with_the_key_that_its_site_had_then(
    founded: CoordinatorContext,
) -> None:
    registry = founded.registry
    token = registry.invitations.create("cat-lab", Access.SITE, 3600.0, again=True)
    registry.invitations.redeem(token, SigningKey.generate().public_key)
    assert rules(founded, 1) == []
