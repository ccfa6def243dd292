"""Commits and rolls back net versions: whatever changes the head, one change at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from rootstock.common import times
from rootstock.common.errors import ConflictError
from rootstock.common.failpoints import failpoint
from rootstock.common.nets.graph import ModuleRef, NetTree, VersionCommit
from rootstock.common.nets.spec import Setting
from rootstock.common.provenance.statements import sign_version
from rootstock.common.text import plain
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.version import grown, task_ref
from rootstock.coordinator.jobs.inspection import Inspection
from rootstock.coordinator.jobs.model import JobResult
from rootstock.coordinator.merges.result import AcceptedJoin, OperatorJoin
from rootstock.coordinator.net.objects import write_tree
from rootstock.coordinator.registry import Merge, NetVersion, NewEvent, Submission
from rootstock.coordinator.registry.documents import MergeChanged, VersionCommitted


class Committer:
    """Commits and rolls back net versions, one after another, whatever learns side by side."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context
        self._committing = asyncio.Lock()
        self._log = structlog.get_logger("net")

    async def commit(
        self, merge: Merge, submission: Submission, join: AcceptedJoin, inspection: Inspection
    ) -> None:
        """Commit the next net version; see `commit`."""
        async with self._committing:
            await asyncio.to_thread(commit, self._context, merge, submission, join, inspection)
        self._log.info("merge.merged", merge=merge.id, category=merge.category, task=merge.task)

    async def roll_back(self, number: int, reason: str, *, and_later: bool) -> list[NetVersion]:
        """Roll a net version back; see `roll_back`."""
        async with self._committing:
            versions = await asyncio.to_thread(
                roll_back, self._context, number, reason, and_later=and_later
            )
        self._log.info(
            "net.rolled_back", versions=[each.number for each in versions], reason=reason
        )
        return versions


def next_tree(
    context: CoordinatorContext, merge: Merge, submission: Submission, join: AcceptedJoin
) -> NetTree:
    """Return the head's tree with what a merge joins; see `commit`."""
    head = context.tree()
    learned: ModuleRef | None = None
    match join.result:
        case JobResult():
            _require_student(head, merge, join.result.student_task_module)
        case OperatorJoin() if merge.operation is OperationKind.CONNECT:
            _require_student(head, merge, join.result.task_module)
        case OperatorJoin(submission=str(digest)) if merge.operation is OperationKind.FOUND:
            learned = task_ref(context.teacher_of(digest), merge.task, digest)
    return grown(
        head,
        Operation(merge.operation, merge.category, merge.task),
        context.teacher(submission),
        context.plan,
        manifest_digest=submission.manifest_digest,
        adapter=join.adapter,
        calibration=join.calibration,
        error=merge.numbers.error_of(join.candidate),
        learned=learned,
    )


def commit(
    context: CoordinatorContext,
    merge: Merge,
    submission: Submission,
    join: AcceptedJoin,
    inspection: Inspection,
) -> None:
    """Commit the head's tree with what a merge joins, in one transaction.

    ConflictError if the net has changed in a way that the merge does not fit.
    """
    head = context.head()
    grown_from = None if head is None else (head.tree, context.net.tree_of(head))
    tree = next_tree(context, merge, submission, join)
    record: dict[str, Setting | None] = {
        "id": merge.id,
        "operation": merge.operation,
        "category": merge.category,
        "task": merge.task,
        "site": submission.site,
        "submission": submission.manifest_digest,
        "candidate": join.candidate,
        "adapter": join.adapter.blob.digest if join.adapter is not None else None,
        "calibration_scale": join.calibration.scale,
        "calibration_bias": join.calibration.bias,
        **merge.numbers.flat(),
    }
    if merge.decision == "approve":
        record["approved"] = merge.decision_reason
    if isinstance(join.result, JobResult):
        record |= join.result.learned_by()
    record["probe"] = inspection.fingerprint
    unsigned = VersionCommit(
        tree=write_tree(context.store, tree, grown_from),
        parent=head.digest if head is not None else None,
        number=context.registry.versions.next_number(),
        merge=record,
        created_at=times.now(),
    )
    signed = sign_version(context.key, unsigned)
    digest = context.store.put_bytes(signed.canonical())
    failpoint("commit.stored")
    news = VersionCommitted(
        number=signed.number, digest=digest, category=merge.category, task=merge.task
    )
    context.registry.versions.commit(
        signed.number,
        digest,
        signed.tree,
        head.number if head is not None else None,
        merge.id,
        events=[news.to(None)],
        reason="",
        candidate=join.candidate,
    )
    failpoint("commit.moved")


def roll_back(
    context: CoordinatorContext, number: int, reason: str, *, and_later: bool
) -> list[NetVersion]:
    """Roll a net version back (see `Versions.roll_back`) and tell the labs whose merges end by it.

    Nothing is deleted: versions, trees and blobs stay, and a later version has the next number.
    """
    reason = plain(f"rolled back by the operator: {reason}")

    def tell(merges: list[Merge]) -> Iterable[NewEvent]:
        for merge in merges:
            news = MergeChanged(merge_id=merge.id, state=merge.state, reason=merge.reason)
            yield news.to(sites[merge.submission_id])

    sites = {submission.id: submission.site for submission in context.registry.submissions.all()}
    return context.registry.versions.roll_back(number, reason, and_later=and_later, events=tell)


def _require_student(tree: NetTree | None, merge: Merge, digest: str) -> None:
    """Refuse an adapter whose task module was rolled back since it was learned."""
    module = None if tree is None else tree.task_modules.get(merge.task)
    if module is None or module.blob.digest != digest:
        raise ConflictError(
            f"merge {merge.id}: the task module that its adapter was learned for was rolled "
            "back in the meantime; it can be learned anew for the one that is there now"
        )
