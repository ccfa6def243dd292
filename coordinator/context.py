"""The coordinator's context: registry, store, plan, key and configuration, and the net in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.documents import Document
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.net.objects import (
    read_commit,
    read_teacher,
    read_tree,
    submitted,
    write_tree,
)
from rootstock.coordinator.paths import job_area, samples_area
from rootstock.coordinator.registry import Merge, MergeState, NetVersion, Registry, Submission
from rootstock.coordinator.registry.documents import MergeChanged

MAX_REASON = 2000
"""Characters of a reason that are kept; a lab's own words may be in it."""


@dataclass(frozen=True)
class CoordinatorContext:
    """Registry, store, plan and key of one coordinator."""

    registry: Registry
    store: BlobStore
    plan: Plan
    key: SigningKey
    config: CoordinatorConfig
    _trees: dict[str, NetTree] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The tree that was read last, by its digest: it is asked for many times a merge."""

    def teacher(self, submission: Submission) -> TeacherManifest:
        """Return the manifest of a submission."""
        return submitted(submission)

    def path_of(self, submission: Submission) -> Callable[[str], Path]:
        """Return a function from a submission's blobs to their files; samples lie apart."""
        shared = self.teacher(submission).shared_samples
        samples = self.store.area(samples_area(submission.id))

        def path(digest: str) -> Path:
            private = shared is not None and digest == shared.blob.digest
            return (samples if private else self.store).local_path(digest)

        return path

    def teacher_of(self, manifest_digest: str) -> TeacherManifest:
        """Return the manifest that a module of the net came with."""
        return read_teacher(self.store, manifest_digest)

    def head(self) -> NetVersion | None:
        """Return the newest net version, or None before the net is founded."""
        return self.registry.versions.head()

    def tree(self) -> NetTree | None:
        """Return the newest net version's tree."""
        head = self.head()
        return None if head is None else self.tree_of(head)

    def tree_of(self, version: NetVersion) -> NetTree:
        """Return a net version's tree."""
        tree = self._trees.get(version.tree)
        if tree is None:
            tree = read_tree(self.store, version.tree)
            self._keep(version.tree, tree)
        return tree

    def put_tree(self, tree: NetTree, head: NetVersion | None) -> str:
        """Store the tree that grew from the head's; return its digest."""
        grown_from = None if head is None else (head.tree, self.tree_of(head))
        digest = write_tree(self.store, tree, grown_from)
        self._keep(digest, tree)
        return digest

    def _keep(self, digest: str, tree: NetTree) -> None:
        self._trees.clear()
        self._trees[digest] = tree

    def commit_of(self, version: NetVersion) -> VersionCommit:
        """Return a net version's commit."""
        return read_commit(self.store, version.digest)

    def owner(self, category: str) -> str | None:
        """Return the lab that a category of the net, or of an open merge, comes from."""
        tree = self.tree()
        if tree is not None and category in tree.category_modules:
            return self.teacher_of(tree.category_modules[category].submission).site
        for merge in self.registry.merges.open():
            if merge.operation.category == category:
                return self.registry.submissions.get(merge.submission_id).site
        return None

    def put(self, document: Document) -> str:
        """Store a document by its content; return its digest."""
        return self.store.put_bytes(document.canonical())

    def fail_all(self, submission: Submission, reason: str) -> None:
        """Fail a merge for each of a submission's tasks, so that its lab hears of the reason."""
        for task in self.teacher(submission).task_modules:
            merge = self.registry.merges.create(
                submission.id, submission.category, task, OperationKind.NEW_CATEGORY
            )
            self.end(merge, submission.site, MergeState.FAILED, reason)

    def end(self, merge: Merge, site: str, state: MergeState, reason: str) -> None:
        """End a merge without a new net version, tell its lab, and drop what its job left."""
        reason, head = plain(reason), self.head()
        self.registry.merges.advance(
            merge.id,
            state,
            reason=reason,
            parent_version=head.number if head else None,
            events=[MergeChanged(merge_id=merge.id, state=state, reason=reason).to(site)],
        )
        self.store.drop(job_area(merge.id))


def plain(reason: str) -> str:
    """Return a reason as every database and message takes it.

    It may hold names that a lab chose: PostgreSQL refuses a NUL, protobuf half of a surrogate pair.
    """
    kept = (
        char if char.isprintable() or char == "\n" else "\ufffd" for char in reason[:MAX_REASON]
    )
    return "".join(kept)
