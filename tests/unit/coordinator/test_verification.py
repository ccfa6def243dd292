from __future__ import annotations

import asyncio

import pytest

from common.identity.keys import SigningKey
from common.nets.calibration import Calibration
from common.nets.graph import Edge, NetTree, VersionCommit
from coordinator.committing import Committer
from coordinator.config import JobsConfig
from coordinator.jobs.runner import JobRunner
from coordinator.ledger import Ledger
from coordinator.places import Places
from coordinator.registry import MergeState, SubmissionState
from coordinator.transplant import Transplanter
from coordinator.verification import verify_version
from coordinator.view import NetView
from tests.unit.coordinator.conftest import receive, teacher

SITE_KEY = SigningKey.generate()


@pytest.fixture
def founded(ledger: Ledger) -> Ledger:
    """A net of one category whose submission is signed by a lab that joined with its key."""
    manifest = teacher(ledger, "cat-lab", "cat")
    ledger.registry.sites.join("cat-lab", SITE_KEY.public_key)
    submission = receive(ledger, manifest, SITE_KEY)
    ledger.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = ledger.registry.merges.create(submission, "cat", "classification", "found")
    transplanter = Transplanter(
        ledger, Committer(ledger), JobRunner(JobsConfig()), Places(ledger.config)
    )
    asyncio.run(transplanter.carry(merge.id))
    return ledger


def rules(ledger: Ledger, number: int, key: bytes | None = None) -> list[str]:
    view = NetView(ledger.registry, ledger.store)
    return [p.rule for p in verify_version(view, number, key or ledger.key.public_key)]


def commit(ledger: Ledger, tree: NetTree, **changes: object) -> None:
    """Commit version 2 with a tree of one's own, signed as the coordinator does."""
    head = ledger.head()
    assert head is not None
    submission = receive(ledger, teacher(ledger, "dog-lab", "dog"))
    ledger.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = ledger.registry.merges.create(submission, "dog", "classification", "new-category")
    for state in (MergeState.DISTILLING, MergeState.EVALUATING):
        ledger.registry.merges.advance(merge.id, state)
    unsigned = VersionCommit(
        tree=tree.content_digest(),
        parent=head.digest,
        number=2,
        merge={"category": "cat", "task": "classification", "adapter": None},
        created_at="2026-01-01T00:00:00+00:00",
    ).model_copy(update=changes)
    signature = ledger.key.sign(unsigned.signed_bytes()).hex()
    digest = ledger.put(unsigned.model_copy(update={"signature": signature}))
    ledger.registry.versions.commit(2, digest, ledger.put(tree), 1, merge.id)


def test_a_whole_version_has_no_problems(founded: Ledger) -> None:
    assert rules(founded, 1) == []
    tree = founded.tree()
    assert tree is not None
    commit(founded, tree)
    assert rules(founded, 2) == []


def test_a_commit_by_another_key(founded: Ledger) -> None:
    other = SigningKey.generate().public_key
    assert rules(founded, 1, other) == ["commit and tree are signed"]


def test_a_version_that_lost_what_its_parent_holds(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    empty = NetTree(architecture=tree.architecture, tasks=tree.tasks)
    commit(founded, empty)
    assert rules(founded, 2) == [
        "a merge adds its join",
        "a child version holds every digest of its parent",
        "a child version joins whatever its parent joins, in the same way",
    ]


def test_a_join_that_changed(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    edge = Edge(category="cat", task="classification", error=99.0)
    commit(founded, tree.model_copy(update={"edges": (edge,)}))
    assert rules(founded, 2) == ["a child version joins whatever its parent joins, in the same way"]


def test_an_adapter_that_is_not_the_merge_s(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    record = {"category": "cat", "task": "classification", "adapter": "a" * 64}
    commit(founded, tree, merge=record)
    assert rules(founded, 2) == ["every adapter traces to a recorded merge"]


def test_a_calibration_that_is_not_the_merge_s(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    joined = tree.edges[0].model_copy(update={"calibration": Calibration(scale=3.0)})
    record = {"category": "cat", "task": "classification", "adapter": None}
    commit(founded, tree.model_copy(update={"edges": (joined,)}), merge=record)
    assert rules(founded, 2) == [
        "every calibration traces to a recorded merge",
        "a child version joins whatever its parent joins, in the same way",
    ]


def test_a_parent_that_is_not_the_one_before(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    commit(founded, tree, parent="b" * 64)
    assert rules(founded, 2) == ["a version's parent is the head of its day"]


def test_a_blob_that_changed_and_one_that_is_gone(founded: Ledger) -> None:
    tree = founded.tree()
    assert tree is not None
    first, second = sorted(tree.digests())
    path = founded.store.local_path(first)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    founded.store.local_path(second).unlink()
    assert rules(founded, 1) == ["every blob matches its digest", "every blob is reachable"]


def test_a_submission_that_its_site_did_not_sign(ledger: Ledger) -> None:
    submission = receive(ledger, teacher(ledger, "cat-lab", "cat"))  # signed with b"signature"
    ledger.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = ledger.registry.merges.create(submission, "cat", "classification", "found")
    transplanter = Transplanter(
        ledger, Committer(ledger), JobRunner(JobsConfig()), Places(ledger.config)
    )
    asyncio.run(transplanter.carry(merge.id))
    assert rules(ledger, 1) == ["every module traces to a signed submission"]
