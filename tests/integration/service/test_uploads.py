from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from rootstock.common.errors import (
    IdentityError,
    IntegrityError,
    LimitError,
    NotFoundError,
    RefusedError,
    RootstockError,
    SchemaError,
    StorageError,
    UnreachableError,
)
from rootstock.common.identity.keys import key_id, verify
from rootstock.common.protocol import receipt_bytes
from rootstock.common.provenance.statements import sign_manifest, verify_manifest
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.paths import signature_ref
from rootstock.coordinator.registry import MergeState, SubmissionState
from rootstock.coordinator.registry.quotas import LEASE_SECONDS
from rootstock.coordinator.service.uploads.slots import STREAMS_PER_SITE
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from tests.support.coordinator_server import (
    CHUNK,
    Lab,
    LabMaker,
    Running,
    Teacher,
    messages_of,
    raising,
    stalled,
    version_of,
)


def test_a_teacher_net_arrives_whole_and_its_receipt_is_signed(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    receipt = cat.ship(teacher)
    signed = receipt_bytes(receipt.manifest_digest, receipt.submission_id, receipt.received_at)
    verify(cat.coordinator_key, receipt.signature, signed, what="the receipt")
    assert receipt.manifest_digest == teacher.manifest.content_digest()
    for digest, path in teacher.files.items():
        assert coordinator.store.local_path(digest).read_bytes() == path.read_bytes()
    # The store alone proves where the modules came from.
    document = coordinator.store.read_bytes(receipt.manifest_digest, 1 << 20)
    signature = coordinator.store.get_ref(signature_ref(receipt.manifest_digest))
    assert signature is not None
    net = key_id(cat.coordinator_key)
    stored = coordinator.store.read_bytes(signature, 64)
    verify_manifest(cat.key.public_key, stored, document, net, what="it")
    (submission,) = coordinator.registry.submissions.all(SubmissionState.RECEIVED)
    assert submission.id == receipt.submission_id == "sub-0001"
    assert not [path for path in coordinator.paths.incoming.rglob("*") if path.is_file()]


def test_what_was_left_of_an_upload_that_has_its_receipt_goes(
    coordinator: Running, lab: LabMaker
) -> None:
    """By a coordinator that was killed between the receipt and its tidying up."""
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    receipt = cat.ship(teacher)
    left = [coordinator.paths.incoming / "cat-lab" / digest for digest in teacher.files]
    for again in (lambda: cat.begin(teacher.manifest), lambda: cat.commit(receipt.submission_id)):
        for path in left:
            path.touch()
        again()
        assert not any(path.exists() for path in left)


def test_again_costs_nothing_and_gives_the_same_receipt(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    receipt = cat.ship(teacher)
    assert cat.commit(receipt.submission_id) == receipt
    begun = cat.begin(teacher.manifest)
    assert (begun.receipt, list(begun.missing)) == (receipt, [])
    # Another manifest with the same blobs: nothing is sent twice.
    assert list(cat.begin(cat.teacher("lynx").manifest).missing) == []
    # Of another lab: only what it may read, the net's modules, need not be sent.
    dog = lab("dog-lab")
    same = dog.teacher("dog")
    assert {blob.digest for blob in dog.begin(same.manifest).missing} == same.files.keys()
    version_of(coordinator, receipt.submission_id)
    assert list(dog.begin(same.manifest).missing) == []


def test_a_cut_upload_resumes_at_the_last_durable_byte(
    coordinator: Running, lab: LabMaker, state: Path
) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    largest = max(begun.missing, key=lambda blob: blob.size)
    _cut(cat, teacher, begun.upload_id, largest, chunks=3)
    resumed = _missing(cat, teacher, largest.digest)
    assert resumed.durable_offset == 3 * CHUNK
    # The coordinator's restart changes nothing about it.
    coordinator.stop()
    again = Running(state)
    try:
        back = lab("cat-lab", address=again.address)
        assert _missing(back, teacher, largest.digest).durable_offset == 3 * CHUNK
        receipt = back.ship(teacher)
        assert receipt.submission_id == begun.upload_id
        digest = hashlib.sha256(again.store.local_path(largest.digest).read_bytes()).hexdigest()
        assert digest == largest.digest
    finally:
        again.stop()


def test_abandoned_partial_files_are_swept_and_can_be_sent_anew(
    coordinator: Running, lab: LabMaker, state: Path
) -> None:
    cat = lab("cat-lab")
    left, kept = cat.teacher("cat", 1), cat.teacher("cat", 2)
    parts = []
    for teacher in (left, kept):
        begun = cat.begin(teacher.manifest)
        largest = max(begun.missing, key=lambda blob: blob.size)
        _cut(cat, teacher, begun.upload_id, largest, chunks=2)
        _missing(cat, teacher, largest.digest)  # the cut has been noticed
        parts.append(state / "incoming" / "cat-lab" / f"{largest.digest}.part")
    coordinator.stop()
    past = time.time() - LEASE_SECONDS - 60
    for part in parts:
        os.utime(part, (past, past))
    with closing(sqlite3.connect(state / "registry.sqlite")) as database, database:
        database.execute("UPDATE uploads SET touched_at = ? WHERE id = 'sub-0001'", (past,))
    again = Running(state)
    try:
        end = time.monotonic() + 20
        while parts[0].exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        back = lab("cat-lab", address=again.address)
        assert _missing(back, left, parts[0].stem).durable_offset == 0
        assert _missing(back, kept, parts[1].stem).durable_offset == 2 * CHUNK
        assert back.ship(left).submission_id == "sub-0001"
    finally:
        again.stop()


def test_of_two_streams_of_one_blob_the_newer_stays(lab: LabMaker) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    largest = max(begun.missing, key=lambda blob: blob.size)
    older = stalled(cat, teacher, begun.upload_id, largest, chunks=2)
    # An agent that was cut off does not wait until the coordinator notices.
    resumed = _missing(cat, teacher, largest.digest)
    cat.send(teacher, begun.upload_id, resumed)
    with pytest.raises(UnreachableError, match="a newer stream"):
        _result(older)
    assert cat.ship(teacher).submission_id == begun.upload_id


def test_a_site_has_so_many_streams_and_the_next_is_told_to_wait(lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    teachers = [cat.teacher("cat", seed) for seed in range(1, STREAMS_PER_SITE + 1)]
    calls = []
    for teacher in teachers:
        begun = cat.begin(teacher.manifest)
        largest = max(begun.missing, key=lambda blob: blob.size)
        calls.append(stalled(cat, teacher, begun.upload_id, largest, chunks=1))
    other = min(begun.missing, key=lambda blob: blob.size)
    with pytest.raises(UnreachableError, match=r"'cat-lab' has 4 upload streams open, the limit"):
        cat.send(teacher, begun.upload_id, other)
    assert dog.ship(dog.teacher("dog", 9)).submission_id == "sub-0005"
    # To begin again ends the stream that a cut has left here, and its slot is free.
    cat.begin(teacher.manifest)
    with pytest.raises(UnreachableError, match="a newer stream"):
        _result(calls.pop())
    assert cat.ship(teacher).submission_id == begun.upload_id
    for call in calls:
        call.cancel()


def test_wrong_bytes_are_dropped_and_said(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    blob = begun.missing[0]
    wrong = bytearray(teacher.files[blob.digest].read_bytes())
    wrong[-1] ^= 1
    teacher.files[blob.digest].write_bytes(wrong)
    with pytest.raises(IntegrityError, match=f"the manifest says {blob.digest}"):
        cat.send(teacher, begun.upload_id, blob)
    assert _missing(cat, teacher, blob.digest).durable_offset == 0
    with pytest.raises(SchemaError, match=f"blob .* is truncated: 0 of {blob.size} bytes"):
        cat.commit(begun.upload_id)
    assert not coordinator.store.has(blob.digest)


def _chunk(offset: int, data: bytes, **changes: int) -> pb.UploadRequest:
    return pb.UploadRequest(offset=offset, data=data, crc32=changes.get("crc32", zlib.crc32(data)))


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        (lambda data: _chunk(CHUNK, data[CHUNK : 2 * CHUNK], crc32=1), IntegrityError, "CRC-32"),
        (lambda data: _chunk(0, data[:CHUNK]), SchemaError, "offset 0"),
        (lambda data: _chunk(2 * CHUNK, data[2 * CHUNK : 3 * CHUNK]), SchemaError, "a gap"),
        (lambda data: _chunk(CHUNK, data[CHUNK : 2 * CHUNK + 1]), LimitError, "4097 bytes"),
        (lambda data: _chunk(CHUNK, b""), SchemaError, "empty"),
        (lambda data: pb.UploadRequest(digest="0" * 64), SchemaError, "one stream sends one blob"),
    ],
    ids=["checksum", "repeated", "gap", "oversized", "empty", "other blob"],
)
def test_a_bad_chunk_is_refused_and_the_good_ones_stay(
    lab: LabMaker,
    second: Callable[[bytes], pb.UploadRequest],
    error: type[RootstockError],
    message: str,
) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    blob = max(begun.missing, key=lambda missing: missing.size)
    data = teacher.files[blob.digest].read_bytes()
    first = _chunk(0, data[:CHUNK])
    first.upload_id, first.digest = begun.upload_id, blob.digest
    with pytest.raises(error, match=message):
        cat.upload([first, second(data)])
    assert _missing(cat, teacher, blob.digest).durable_offset == CHUNK
    assert cat.ship(teacher).submission_id == begun.upload_id


def test_a_truncated_stream_is_no_upload(lab: LabMaker) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    blob = max(begun.missing, key=lambda missing: missing.size)
    messages = list(messages_of(teacher, begun.upload_id, blob))[:-1]
    answer = cat.upload(messages)
    assert answer.durable_offset == sum(len(message.data) for message in messages) < blob.size
    with pytest.raises(SchemaError, match="truncated"):
        cat.commit(begun.upload_id)
    with pytest.raises(SchemaError, match="no first message"):
        cat.upload([])
    with pytest.raises(SchemaError, match="not in the manifest"):
        cat.upload([pb.UploadRequest(upload_id=begun.upload_id, digest="0" * 64)])


def test_a_lab_touches_its_own_uploads_only(lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    teacher = cat.teacher("cat")
    begun = cat.begin(teacher.manifest)
    with pytest.raises(NotFoundError, match="'dog-lab' has no upload"):
        dog.send(teacher, begun.upload_id, begun.missing[0])
    with pytest.raises(NotFoundError, match="'dog-lab' has no upload"):
        dog.commit(begun.upload_id)
    with pytest.raises(IdentityError, match="the manifest is of site 'cat-lab'"):
        dog.begin(teacher.manifest)


def test_the_manifests_signature_is_checked(lab: LabMaker) -> None:
    """It is the site's, and says which net it is for: what another net has is worth nothing."""
    cat, dog = lab("cat-lab"), lab("dog-lab")
    document = cat.teacher("cat").manifest.canonical()
    theirs = sign_manifest(cat.key, document, key_id(dog.key.public_key))
    for signature in (dog.sign(document), cat.key.sign(document), theirs):
        request = pb.BeginUploadRequest(manifest=document, signature=signature)
        with pytest.raises(IntegrityError, match="signature of the manifest"):
            cat.call("BeginUpload", request)
    cat.begin(cat.teacher("cat").manifest)


def test_nothing_is_parsed_before_the_signature_is_known_to_be_the_site_s(lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    bomb = b"[" * 100_000
    with pytest.raises(IntegrityError, match="signature of the manifest"):
        cat.call("BeginUpload", pb.BeginUploadRequest(manifest=bomb, signature=dog.sign(bomb)))
    with pytest.raises(SchemaError, match="100000 values, the limit is"):
        cat.call("BeginUpload", pb.BeginUploadRequest(manifest=bomb, signature=cat.sign(bomb)))


@pytest.mark.parametrize("coordinator", [{"max_open_uploads_per_site": 2}], indirect=True)
def test_the_quota_of_open_uploads(lab: LabMaker) -> None:
    cat = lab("cat-lab")
    teachers = [cat.teacher("cat", seed) for seed in (1, 2, 3)]
    for teacher in teachers[:2]:
        cat.begin(teacher.manifest)
    with pytest.raises(UnreachableError, match=r"quota: site 'cat-lab' has 2 open uploads"):
        cat.begin(teachers[2].manifest)
    cat.ship(teachers[0])
    assert cat.ship(teachers[2]).submission_id == "sub-0003"


@pytest.mark.parametrize("coordinator", [{"max_open_merges_per_site": 2}], indirect=True)
def test_the_quota_of_open_merges(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    merges, submissions = coordinator.registry.merges, coordinator.registry.submissions
    first = cat.ship(cat.teacher("cat", 1)).submission_id
    merge = merges.create(first, "cat", "classification", OperationKind.FOUND)
    second = cat.ship(cat.teacher("cow", 2)).submission_id
    third = cat.teacher("pig", 3)
    with pytest.raises(UnreachableError, match="'cat-lab' has 2 open merges, the limit is 2; wait"):
        cat.begin(third.manifest)
    assert dog.ship(dog.teacher("dog", 9)).submission_id == "sub-0003"
    submissions.set_state(second, SubmissionState.REFUSED, "taken")
    fourth = cat.ship(third).submission_id
    with pytest.raises(UnreachableError, match="2 open merges"):
        cat.begin(cat.teacher("hen", 4).manifest)
    merges.advance(merge.id, MergeState.REJECTED, reason="too high an error")
    submissions.set_state(fourth, SubmissionState.ADMITTED)
    cat.begin(cat.teacher("hen", 4).manifest)


@pytest.mark.parametrize("coordinator", [{"max_uploads_per_hour": 2}], indirect=True)
def test_uploads_an_hour_are_bounded_over_all_sites(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    first = cat.teacher("cat", 1)
    cat.ship(first)
    dog.ship(dog.teacher("dog", 2))
    with pytest.raises(UnreachableError, match="quota: all sites together began 2 uploads"):
        dog.begin(dog.teacher("cow", 3).manifest)
    assert cat.ship(first).submission_id == "sub-0001"


@pytest.mark.parametrize("coordinator", [{"min_free_bytes": 1 << 60}], indirect=True)
def test_a_disk_is_never_filled_to_the_brim(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    with pytest.raises(UnreachableError, match=r"bytes free, \d+ are to come and .* stay free"):
        cat.begin(teacher.manifest)
    assert list(coordinator.paths.incoming.glob("*/*")) == []


@pytest.mark.parametrize("coordinator", [{"max_open_bytes_per_site": 1024}], indirect=True)
def test_the_quota_of_bytes(lab: LabMaker) -> None:
    cat = lab("cat-lab")
    with pytest.raises(LimitError, match=r"quota: the manifest lists \d+ bytes, .* have 1024; ask"):
        cat.begin(cat.teacher("cat").manifest)


def _larger_first_tensor(manifest: TeacherManifest) -> dict[str, object]:
    entry = manifest.category_module
    name, tensor = next(iter(entry.tensors.items()))
    lie = tensor.model_copy(update={"shape": (*tensor.shape, 2)})
    tensors = {**entry.tensors, name: lie}
    return {"category_module": entry.model_copy(update={"tensors": tensors})}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda manifest: {"plan": "0" * 64}, "plan"),
        (lambda manifest: {"task_modules": {"counting": manifest.category_module}}, "task"),
        (
            lambda manifest: {
                "architecture": manifest.architecture.model_copy(update={"split": "pool9"})
            },
            "pool9",
        ),
        (
            lambda manifest: {
                "architecture": manifest.architecture.model_copy(update={"name": "resnet-9"})
            },
            "resnet-9",
        ),
        (
            lambda manifest: {
                "category_module": manifest.category_module.model_copy(update={"size": 1 << 40})
            },
            "size",
        ),
        (_larger_first_tensor, "tensors"),
        (lambda manifest: {"metrics": {}}, "metrics"),
        (lambda manifest: {"metrics": {"error/classification": 101.0}}, "metrics"),
    ],
)
def test_what_a_manifest_alone_shows_is_refused_before_a_byte_is_sent(
    coordinator: Running,
    lab: LabMaker,
    change: Callable[[TeacherManifest], dict[str, object]],
    check: str,
) -> None:
    cat = lab("cat-lab")
    teacher = cat.teacher("cat")
    with pytest.raises(RefusedError, match=check) as refusal:
        cat.begin(teacher.manifest.model_copy(update=change(teacher.manifest)))
    assert isinstance(refusal.value, RefusedError)
    assert coordinator.registry.submissions.all() == []
    assert cat.ship(teacher).submission_id == "sub-0001"


def test_private_blobs_are_not_had_by_naming_them(coordinator: Running, lab: LabMaker) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    samples = {"images": torch.rand(3, 3, 32, 32), "labels": torch.tensor([1.0, 0.0, 1.0])}
    shipped = cat.teacher("cat", samples=samples)
    cat.ship(shipped)
    named = dog.teacher("dog", seed=2, samples=samples)
    begun = dog.begin(named.manifest)
    assert shipped.manifest.shared_samples is not None
    digest = shipped.manifest.shared_samples.blob.digest
    assert digest in {blob.digest for blob in begun.missing}
    for missing in begun.missing:
        dog.send(named, begun.upload_id, missing)
    dog.commit(begun.upload_id)
    areas = {name: coordinator.store.area(f"samples/{name}") for name in ("sub-0001", "sub-0002")}
    assert all(area.has(digest) for area in areas.values())
    assert not coordinator.store.has(digest)


def test_nothing_is_said_of_another_lab_s_blobs(coordinator: Running, lab: LabMaker) -> None:
    """Neither that there is one, nor its size."""
    cat, dog = lab("cat-lab"), lab("dog-lab")
    shipped = cat.teacher("cat")
    cat.ship(shipped)
    named = dog.teacher("dog", seed=2).manifest
    module = shipped.manifest.category_module
    lie = module.model_copy(update={"size": module.size + 1})
    begun = dog.begin(named.model_copy(update={"category_module": lie}))
    assert module.digest in {blob.digest for blob in begun.missing}
    # Of its own it is said, as before.
    with pytest.raises(SchemaError, match=f"has {module.size} bytes, the manifest says"):
        cat.begin(shipped.manifest.model_copy(update={"category_module": lie}))


def test_what_was_stored_before_a_crash_is_not_sent_again(
    coordinator: Running, lab: LabMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat = lab("cat-lab")
    samples = {"images": torch.rand(3, 3, 32, 32), "labels": torch.tensor([1.0, 0.0, 1.0])}
    teacher = cat.teacher("cat", samples=samples)
    begun = cat.begin(teacher.manifest)
    for missing in begun.missing:
        cat.send(teacher, begun.upload_id, missing)
    with monkeypatch.context() as broken:

        def crash(*_: object, **__: object) -> None:
            raise StorageError("the disk of the database is full")

        broken.setattr(coordinator.registry.uploads, "receive", crash)
        with pytest.raises(StorageError):
            cat.commit(begun.upload_id)
    assert coordinator.store.has(teacher.manifest.category_module.digest)
    assert list(cat.begin(teacher.manifest).missing) == []
    assert cat.commit(begun.upload_id).submission_id == begun.upload_id
    assert not [path for path in coordinator.paths.incoming.rglob("*") if path.is_file()]


def _cut(lab: Lab, teacher: Teacher, upload_id: str, blob: pb.MissingBlob, chunks: int) -> None:
    stalled(lab, teacher, upload_id, blob, chunks).cancel()


def _result(call: Any) -> Any:
    with raising():
        return call.result(timeout=20)


def _missing(lab: Lab, teacher: Teacher, digest: str) -> pb.MissingBlob:
    begun = lab.begin(teacher.manifest)
    return next(blob for blob in begun.missing if blob.digest == digest)
