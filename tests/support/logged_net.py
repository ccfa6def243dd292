"""A registry in which everything that is logged has happened, without a net in a store."""

from __future__ import annotations

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import Access, Merge, MergeState, Registry, SubmissionState
from rootstock.coordinator.registry.documents import (
    EvaluationReport,
    EvaluationRequest,
    ReportedResult,
)
from tests.support.named_blobs import ARCHITECTURE, blob, teacher
from tests.support.registry_uploads import begin, receive


def grow(registry: Registry) -> None:
    """Merge a cat and a dog, roll a cow back, refuse a pig; the dog's lab has joined again."""
    for number, category in enumerate(("cat", "dog", "cow"), start=1):
        merge = evaluated(registry, category)
        if category == "dog":
            registry.merges.decide(merge.id, "approve", "looks good")
        parent = None if number == 1 else number - 1
        digest, tree = str(number) * 64, str(number + 3) * 64
        registry.versions.commit(
            number, digest, tree, parent, merge.id, candidate=Candidate.NO_ADAPTER
        )
    registry.versions.roll_back(3, "wrong labels")
    registry.sites.join("pig-lab", b"p" * 32)
    pig = begin(registry, teacher("pig", "classification"))
    receive(registry, pig)
    registry.submissions.set_state(pig.id, SubmissionState.REFUSED, "norms")
    registry.certificates.add("1f", "pig-lab", Access.SITE, 1e12)
    registry.certificates.revoke("pig-lab", Access.SITE, "left")
    token = registry.invitations.create("dog-lab", Access.SITE, 3600.0, again=True)
    registry.invitations.redeem(token, b"n" * 32)


def evaluated(registry: Registry, category: str) -> Merge:
    """Bring a category's merge to a report of its lab."""
    site = f"{category}-lab"
    registry.sites.join(site, category[0].encode() * 32)
    upload = begin(registry, teacher(category, "classification"))
    receive(registry, upload)
    registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
    merge = registry.merges.create(
        upload.id, category, "classification", OperationKind.NEW_CATEGORY
    )
    registry.merges.advance(merge.id, MergeState.DISTILLING)
    registry.merges.advance(merge.id, MergeState.EVALUATING)
    name = merge.id.replace("mrg", "evl")
    request = EvaluationRequest(
        evaluation_id=name,
        merge_id=merge.id,
        manifest_digest=upload.manifest_digest,
        task="classification",
        architecture=ARCHITECTURE,
        task_module=blob("g"),
        candidates={Candidate.NO_ADAPTER: None},
    )
    registry.evaluations.request(site, request)
    result = ReportedResult(name="no_adapter", error=20.0, samples=50)
    registry.evaluations.report(name, EvaluationReport(evaluation_id=name, results=(result,)))
    numbers = MergeNumbers(
        teacher_error=5.0, candidates={Candidate.NO_ADAPTER: CandidateResult(20.0, 20.0)}
    )
    registry.merges.update(merge.id, numbers=numbers)
    return registry.merges.advance(merge.id, MergeState.REVIEWING)
