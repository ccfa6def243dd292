"""A net with everything signed: founded, grown, rolled back, with a question and its report."""

from __future__ import annotations

import asyncio

from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.graph import NetTree, VersionCommit
from rootstock.common.provenance.statements import sign_version
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.merges.evaluation import ask
from rootstock.coordinator.net.objects import write_tree
from rootstock.coordinator.registry import MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import merge_runner

SITE_KEY = SigningKey.generate()


def found(context: CoordinatorContext) -> None:
    """Found a net on a category whose submission is signed by a lab that joined with its key."""
    manifest = teacher(context, "cat-lab", "cat")
    submission = receive(context, manifest, SITE_KEY)
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)
    asyncio.run(merge_runner(context).carry(merge.id))


def commit(context: CoordinatorContext, tree: NetTree, **changes: object) -> None:
    """Commit a version with a tree of one's own, signed as the coordinator does."""
    head = context.head()
    assert head is not None
    number = context.registry.versions.next_number()
    manifest = teacher(context, "dog-lab", "dog").model_copy(
        update={"software": {"try": str(number)}}
    )
    submission = receive(context, manifest, SITE_KEY)
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(
        submission, "dog", "classification", OperationKind.NEW_CATEGORY
    )
    for state in (MergeState.DISTILLING, MergeState.EVALUATING):
        context.registry.merges.advance(merge.id, state)
    row = context.registry.submissions.get(submission)
    ask(context, merge, row, {Candidate.NO_ADAPTER: None}, turn=1, refinement=None)
    name = merge.id.replace("mrg", "evl")
    report = EvaluationReport(evaluation_id=name, failure="no images")
    context.registry.evaluations.report(name, report)
    unsigned = VersionCommit(
        tree=write_tree(context.store, tree),
        parent=head.digest,
        number=number,
        merge={"category": "cat", "task": "classification", "adapter": None},
        created_at="2026-01-01T00:00:00+00:00",
    ).model_copy(update=changes)
    signed = sign_version(context.key, unsigned)
    digest = context.store.put_bytes(signed.canonical())
    context.registry.versions.commit(number, digest, signed.tree, head.number, merge.id)
