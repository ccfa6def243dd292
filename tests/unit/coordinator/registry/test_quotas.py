"""Quotas of what is begun and stored, for a site and for all sites together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rootstock.common.errors import UnreachableError
from rootstock.common.protocol import evaluation_id
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.registry import MergeState, Receipt, Registry, SubmissionState, Upload
from rootstock.coordinator.registry.documents import EvaluationRequest
from rootstock.coordinator.registry.quotas import HOUR_SECONDS, LEASE_SECONDS, Quota
from tests.support.named_blobs import ARCHITECTURE, blob, teacher
from tests.support.registry_uploads import Clock, receive, refinement

LARGE = Quota(1000, 1000, 1000, 1 << 40, 1 << 40)
SIZE = sum(blob.size for blob in teacher("cat", "classification").blobs())


def begin(registry: Registry, category: str, quota: Quota, site: str = "cat-lab") -> Upload:
    manifest = teacher(category, "classification").model_copy(update={"site": site})
    return registry.uploads.begin(
        manifest, manifest.canonical(), b"signature", open_limit=100, quota=quota
    )


@pytest.mark.parametrize(
    ("setting", "others"),
    [("max_uploads_per_hour_per_site", True), ("max_uploads_per_hour", False)],
)
def test_uploads_within_an_hour_are_counted(
    registry: Registry, clock: Clock, setting: str, others: bool
) -> None:
    quota = replace(LARGE, **{setting: 2})
    first = begin(registry, "cat", quota)
    begin(registry, "cow", quota)
    with pytest.raises(UnreachableError, match=f"began 2 uploads .* server.{setting}"):
        begin(registry, "dog", quota)
    assert begin(registry, "cat", quota).id == first.id  # resumed
    if others:
        begin(registry, "dog", quota, site="dog-lab")
    else:
        with pytest.raises(UnreachableError, match="all sites together"):
            begin(registry, "dog", quota, site="dog-lab")
    clock.now += HOUR_SECONDS
    begin(registry, "sheep", quota)


@pytest.mark.parametrize("setting", ["max_stored_bytes_per_site", "max_stored_bytes"])
def test_stored_bytes_are_counted_until_they_are_refused(registry: Registry, setting: str) -> None:
    quota = replace(LARGE, **{setting: 2 * SIZE})
    kept = begin(registry, "cat", quota)
    begin(registry, "cow", quota)
    with pytest.raises(UnreachableError, match=f"would have {3 * SIZE} bytes .* server.{setting}"):
        begin(registry, "dog", quota)
    if setting == "max_stored_bytes_per_site":
        begin(registry, "dog", quota, site="dog-lab")
    receive(registry, kept)
    registry.submissions.set_state(kept.id, SubmissionState.REFUSED, "finite: NaN")
    begin(registry, "horse", quota)


def test_who_was_the_first_to_ship_a_blob_is_known(registry: Registry, clock: Clock) -> None:
    digest = teacher("cat", "classification").category_module.digest
    thief = begin(registry, "cat", LARGE, site="dog-lab")
    assert registry.uploads.first_with(digest) is None  # to begin proves nothing
    clock.now += 1
    receive(registry, begin(registry, "cat", LARGE))
    assert registry.uploads.first_with(digest) == "cat-lab"
    late = Receipt(thief.manifest_digest, thief.id, "2027-01-01T00:00:00+00:00", b"signed")
    registry.uploads.receive(thief.id, late)
    assert registry.uploads.first_with(digest) == "cat-lab"


def test_what_is_given_up_or_came_to_nothing_is_not_counted_for_ever(
    registry: Registry, clock: Clock
) -> None:
    quota = replace(LARGE, max_stored_bytes_per_site=2 * SIZE)
    cat = begin(registry, "cat", quota)
    receive(registry, cat)
    begin(registry, "cow", quota)
    with pytest.raises(UnreachableError, match="max_stored_bytes_per_site"):
        begin(registry, "dog", quota)
    clock.now += LEASE_SECONDS + 1  # cow is given up, what is received stays
    dog = begin(registry, "dog", quota)
    with pytest.raises(UnreachableError, match="max_stored_bytes_per_site"):
        begin(registry, "horse", quota)
    receive(registry, dog)
    registry.submissions.set_state(dog.id, SubmissionState.REFUSED, "finite: NaN")
    # A refined adapter counts while its merge is open, and in a version that took it.
    ends: tuple[tuple[MergeState, Candidate | None], ...] = (
        (MergeState.REJECTED, None),
        (MergeState.MERGED, Candidate.ZERO_SAMPLE),
        (MergeState.MERGED, Candidate.REFINED),
    )
    for number, (state, candidate) in enumerate(ends, start=1):
        merge = registry.merges.create(
            cat.id, f"cat-{number}", "classification", OperationKind.NEW_CATEGORY
        )
        ask(registry, merge.id)
        manifest = refinement(evaluation_id(merge.id), name=f"refined-{number}")
        tight = replace(LARGE, max_stored_bytes_per_site=SIZE + manifest.adapter.blob.size)
        registry.uploads.begin(
            manifest, manifest.canonical(), b"signature", open_limit=100, quota=tight
        )
        again = refinement(evaluation_id(merge.id), name="another")
        with pytest.raises(UnreachableError, match="max_stored_bytes_per_site"):
            registry.uploads.begin(again, again.canonical(), b"-", open_limit=100, quota=tight)
        for step in (MergeState.DISTILLING, MergeState.EVALUATING):
            registry.merges.advance(merge.id, step)
        if state is MergeState.REJECTED:
            registry.merges.advance(merge.id, state)
        else:
            head = registry.versions.head()
            registry.versions.commit(
                registry.versions.next_number(),
                f"{number:064d}",
                "t" * 64,
                None if head is None else head.number,
                merge.id,
                candidate=candidate,
            )
    with pytest.raises(UnreachableError, match="max_stored_bytes_per_site"):
        registry.uploads.begin(again, again.canonical(), b"-", open_limit=100, quota=tight)


def ask(registry: Registry, merge_id: str) -> None:
    request = EvaluationRequest(
        evaluation_id=evaluation_id(merge_id),
        merge_id=merge_id,
        manifest_digest="ab" * 32,
        task="classification",
        architecture=ARCHITECTURE,
        task_module=blob("g"),
        candidates={Candidate.NO_ADAPTER: None},
    )
    registry.evaluations.request("cat-lab", request)
