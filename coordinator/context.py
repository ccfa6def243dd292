"""The coordinator's context: registry, store, plan, key and configuration, and the net in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rootstock.common import times
from rootstock.common.artifacts.store import BlobStore
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan, receipt_bytes
from rootstock.common.text import outward, plain
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.growth.operations import Offer, Operation, OperationKind, Refusal, decide
from rootstock.coordinator.net.objects import read_teacher, submitted
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.paths import StatePaths, job_area, samples_area
from rootstock.coordinator.provenance.signed_log import SignedLog
from rootstock.coordinator.registry import (
    Merge,
    MergeState,
    NetVersion,
    Receipt,
    Registry,
    Submission,
)
from rootstock.coordinator.registry.documents import MergeChanged


@dataclass(frozen=True)
class CoordinatorContext:
    """Registry, store, plan and key of one coordinator."""

    registry: Registry
    store: BlobStore
    plan: Plan
    key: SigningKey
    config: CoordinatorConfig

    @cached_property
    def net(self) -> NetReader:
        """The net versions."""
        return NetReader(self.registry, self.store)

    @cached_property
    def log(self) -> SignedLog:
        """The log of what made the net what it is."""
        return SignedLog(self.registry.log, self.key, StatePaths(self.config).log_head)

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
        return None if head is None else self.net.tree_of(head)

    def owner(self, category: str) -> str | None:
        """Return the lab that a category of the net, or of an open merge, comes from."""
        tree = self.tree()
        if tree is not None and category in tree.category_modules:
            return self.teacher_of(tree.category_modules[category].submission).site
        for merge in self.registry.merges.open():
            if merge.operation.category == category:
                return self.registry.submissions.get(merge.submission_id).site
        return None

    def operations(self, offer: Offer) -> list[Operation] | Refusal:
        """Return what a teacher net calls for as the net and the open merges are now."""
        underway = [merge.operation for merge in self.registry.merges.open()]
        return decide(self.tree(), offer, self.plan, underway, self.owner)

    def receipt(self, manifest_digest: str, upload_id: str) -> Receipt:
        """Sign that an upload is durable, as of now."""
        received_at = times.now()
        signature = self.key.sign(receipt_bytes(manifest_digest, upload_id, received_at))
        return Receipt(manifest_digest, upload_id, received_at, signature)

    def fail_all(self, submission: Submission, reason: str) -> None:
        """Fail a merge for each of a submission's tasks, so that its lab hears of the reason."""
        reason, head = reason_text(reason), self.head()
        self.registry.merges.fail(
            submission.id,
            [
                Operation(OperationKind.NEW_CATEGORY, submission.category, task)
                for task in self.teacher(submission).task_modules
            ],
            reason,
            None if head is None else head.number,
            lambda merge_id: MergeChanged(
                merge_id=merge_id, state=MergeState.FAILED, reason=reason
            ).to(submission.site),
        )

    def end(self, merge: Merge, site: str, state: MergeState, reason: str) -> None:
        """End a merge without a new net version, tell its lab, and drop what its job left."""
        reason, head = reason_text(reason), self.head()
        self.registry.merges.advance(
            merge.id,
            state,
            reason=reason,
            parent_version=head.number if head else None,
            events=[MergeChanged(merge_id=merge.id, state=state, reason=reason).to(site)],
        )
        self.store.drop(job_area(merge.id))


def reason_text(reason: str) -> str:
    """Return a reason as it is stored and labs are told it; a lab's own words may be in it."""
    return outward(plain(reason))
