from __future__ import annotations

import hashlib

import pytest

from rootstock.common.errors import ConflictError, LimitError, NotFoundError, UnreachableError
from rootstock.common.weights.manifest import SharedSamples, TeacherManifest
from rootstock.coordinator.registry import HeldAt, NewEvent, Registry, SubmissionState, Upload
from rootstock.coordinator.registry.quotas import LEASE_SECONDS
from tests.support.named_blobs import blob, teacher
from tests.support.registry_uploads import Clock, begin, receive, refinement


def test_a_name_belongs_to_its_first_key(registry: Registry) -> None:
    registry.sites.join("cat-lab", b"c" * 32)
    with pytest.raises(ConflictError, match="'cat-lab' belongs to a lab with another key"):
        registry.sites.join("cat-lab", b"x" * 32)
    assert registry.sites.key_of("cat-lab") == b"c" * 32
    assert registry.sites.key_of("cow-lab") is None
    assert [site.name for site in registry.sites.all()] == ["cat-lab", "dog-lab"]


def test_a_teachers_upload_is_a_submission(registry: Registry) -> None:
    manifest = teacher("cat", "classification")
    upload = begin(registry, manifest)
    assert upload.id == "sub-0001"
    assert upload.receipt is None
    submission = registry.submissions.get(upload.id)
    assert SubmissionState.RECEIVING is submission.state
    assert (submission.site, submission.category) == ("cat-lab", "cat")
    assert manifest.canonical() == submission.manifest
    assert manifest.content_digest() == submission.manifest_digest


def test_the_same_manifest_is_the_same_upload(registry: Registry) -> None:
    first = begin(registry, teacher("cat", "classification"))
    assert first.id == begin(registry, teacher("cat", "classification")).id
    assert len(registry.submissions.all()) == 1
    other = begin(registry, teacher("dog", "classification"))
    assert other.id == "sub-0002"


def test_an_upload_is_by_the_key_that_began_it_last(registry: Registry) -> None:
    """A lab that joined again with another key resumes; once there is a receipt, that is that."""
    manifest = teacher("cat", "classification")
    first = begin(registry, manifest)
    for signature in (b"another", b"a third"):
        again = registry.uploads.begin(manifest, manifest.canonical(), signature, open_limit=4)
        assert (again.id, again.signature) == (first.id, signature)
    receive(registry, first)
    assert begin(registry, manifest).signature == b"a third"


def test_receipt_and_state_come_together_and_stay(registry: Registry) -> None:
    upload = begin(registry, teacher("cat", "classification"))
    receipt = receive(registry, upload)
    assert SubmissionState.RECEIVED is registry.submissions.get(upload.id).state
    again = registry.uploads.receive(
        upload.id,
        type(receipt)(receipt.manifest_digest, upload.id, "2030-01-01T00:00:00+00:00", b"other"),
    )
    assert receipt == again
    assert receipt == registry.uploads.get(upload.id).receipt
    # The second time nothing happened, so nothing is told.
    assert registry.events.last_cursor() == 0


def test_submissions_move_only_along_the_state_machine(registry: Registry) -> None:
    upload = begin(registry, teacher("cat", "classification"))
    with pytest.raises(ConflictError, match="'receiving' and cannot become 'admitted'"):
        registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
    receive(registry, upload)
    event = NewEvent("cat-lab", "submission", b"refused")
    registry.submissions.set_state(
        upload.id, SubmissionState.REFUSED, "finite: NaN", events=[event]
    )
    refused = registry.submissions.all(SubmissionState.REFUSED)
    assert [(row.id, row.reason) for row in refused] == [("sub-0001", "finite: NaN")]
    assert [e.payload for e in registry.events.after("cat-lab", 0, 10)] == [b"refused"]
    with pytest.raises(ConflictError, match="final state"):
        registry.submissions.set_state(upload.id, SubmissionState.ADMITTED, events=[event])
    # The event of the refused step was not appended either.
    assert len(registry.events.after("cat-lab", 0, 10)) == 1
    assert registry.submissions.all(SubmissionState.RECEIVED) == []


def test_quota_counts_open_uploads_that_still_move(registry: Registry, clock: Clock) -> None:
    begin(registry, teacher("cat", "classification"), open_limit=2)
    done = begin(registry, teacher("cat", "counting"), open_limit=2)
    third = teacher("cat", "classification", "counting")
    with pytest.raises(UnreachableError, match="'cat-lab' has 2 open uploads, the limit is 2"):
        begin(registry, third, open_limit=2)
    # Resuming is no new upload, and another site's quota is its own.
    begin(registry, teacher("cat", "classification"), open_limit=2)
    begin(registry, teacher("dog", "classification"), open_limit=2)
    receive(registry, done)
    begin(registry, third, open_limit=2)
    fourth = refinement("evl-0001")
    with pytest.raises(UnreachableError):
        begin(registry, fourth, open_limit=2)
    clock.now += LEASE_SECONDS + 1
    assert begin(registry, fourth, open_limit=2).id == "ref-0001"


def test_quota_counts_the_bytes_of_open_uploads(registry: Registry, clock: Clock) -> None:
    def open_one(manifest: TeacherManifest) -> Upload:  # a blob has 8 bytes
        return registry.uploads.begin(
            manifest, manifest.canonical(), b"signature", open_limit=9, byte_limit=32
        )

    first = open_one(teacher("cat", "classification"))
    with pytest.raises(LimitError, match=r"40 bytes.* may have 32; .*max_open_bytes_per_site"):
        open_one(teacher("cat", "a", "b", "c", "d"))
    open_one(teacher("cat", "counting"))  # the same category module: 24 bytes in all
    third = teacher("cat", "a", "b")
    with pytest.raises(UnreachableError, match=r"'cat-lab' would have 40 bytes, the limit is 32;"):
        open_one(third)
    open_one(teacher("dog", "a", "b"))
    receive(registry, first)
    open_one(third)
    clock.now += LEASE_SECONDS + 1
    open_one(teacher("cat", "c", "d"))
    # What was left alone for so long comes back within the quota only.
    with pytest.raises(UnreachableError, match="would have 40 bytes"):
        open_one(third)


def test_a_refinement_counts_once_it_has_its_receipt(registry: Registry) -> None:
    upload = begin(registry, refinement("evl-0007"))
    assert (upload.id, upload.evaluation_id) == ("ref-0001", "evl-0007")
    assert registry.uploads.refinement(upload.manifest_digest) is None
    receipt = receive(registry, upload)
    found = registry.uploads.refinement(upload.manifest_digest)
    assert found is not None
    assert receipt == found.receipt
    assert registry.submissions.all() == []
    submission = begin(registry, teacher("cat", "classification"))
    receive(registry, submission)
    assert registry.uploads.refinement(submission.manifest_digest) is None


def test_what_a_site_has_sent_is_what_it_has_receipts_for(registry: Registry) -> None:
    manifest = teacher("cat", "classification").model_copy(
        update={
            "statistics": blob("statistics"),
            "shared_samples": SharedSamples(count=1, blob=blob("samples")),
        }
    )
    upload = begin(registry, manifest)
    digests = [entry.digest for entry in manifest.blobs()]
    assert len(digests) == 4
    assert not any(registry.uploads.sent("cat-lab", digest) for digest in digests)
    receive(registry, upload)
    assert all(registry.uploads.sent("cat-lab", digest) for digest in digests)
    assert not any(registry.uploads.sent("dog-lab", digest) for digest in digests)
    assert not registry.uploads.sent("cat-lab", blob("made by the coordinator").digest)


def test_declaring_another_site_s_blob_is_not_having_sent_it(registry: Registry) -> None:
    cat = teacher("cat", "classification").model_copy(update={"statistics": blob("statistics")})
    receive(registry, begin(registry, cat))
    dog = teacher("dog", "classification").model_copy(update={"statistics": blob("statistics")})
    upload = begin(registry, dog)
    assert not registry.uploads.sent("dog-lab", blob("statistics").digest)
    receive(registry, upload)  # only now has it sent the bytes itself
    assert registry.uploads.sent("dog-lab", blob("statistics").digest)


def test_references_say_what_an_upload_needs_and_whether_it_may_still_come(
    registry: Registry, clock: Clock
) -> None:
    shares = teacher("cat", "classification")
    upload = begin(registry, shares)
    clock.now += 1
    refined = begin(registry, refinement("evl-0001"))
    first, second = registry.uploads.references()
    assert (first.id, first.evaluation_id, first.state) == (upload.id, None, "receiving")
    assert (first.open, first.manifest) == (True, upload.manifest_digest)
    assert first.signature == hashlib.sha256(upload.signature).hexdigest()
    assert first.blobs == {entry.digest for entry in shares.blobs()}
    assert (second.id, second.evaluation_id, second.state) == (refined.id, "evl-0001", None)
    clock.now += LEASE_SECONDS + 1
    receive(registry, refined)
    assert [each.open for each in registry.uploads.references()] == [False, False]
    begin(registry, shares)
    assert [each.open for each in registry.uploads.references()] == [True, False]


def test_unknown_ids_are_said_to_be_unknown(registry: Registry) -> None:
    for call in (
        lambda: registry.uploads.get("sub-9999"),
        lambda: registry.uploads.touch("sub-9999"),
        lambda: registry.submissions.set_state("sub-9999", SubmissionState.ADMITTED),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert registry.uploads.find("0" * 64) is None


def test_what_is_held_of_a_blob_is_decided_once_until_it_comes_as_a_whole(
    registry: Registry,
) -> None:
    manifest = teacher("cat", "classification")
    upload = begin(registry, manifest)
    f, g = (entry.digest for entry in manifest.blobs())
    first = {"weight": HeldAt("a" * 64, "conv.weight"), "bias": HeldAt("b" * 64, "bias")}
    assert registry.uploads.held(upload.id, f) is None
    assert registry.uploads.hold(upload.id, f, first, 700) == first
    assert registry.uploads.hold(upload.id, f, {"bias": HeldAt("c" * 64, "bias")}, 9) == first
    assert registry.uploads.held(upload.id, f) == first
    assert registry.uploads.held(upload.id, g) is None
    registry.uploads.hold(upload.id, g, first, 50)
    other = begin(registry, teacher("dog", "classification"))
    assert registry.uploads.held_bytes() == {upload.id: 750}
    assert registry.uploads.held(other.id, f) is None
    registry.uploads.hold_nothing(upload.id, f)
    assert registry.uploads.hold(upload.id, f, first, 700) == {}
    assert registry.uploads.held(upload.id, f) == {}
    assert registry.uploads.held_bytes() == {upload.id: 50}
    with pytest.raises(NotFoundError, match=f"'{other.id}' has no blob {f}; begin it again"):
        registry.uploads.hold(other.id, f, first, 700)
