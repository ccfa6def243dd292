"""Tensors that modules of the net hold do not travel: real servers, real weights, bytes counted."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    RootstockError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.transport.dedup import held_bytes
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import read, write
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.merges.commit import roll_back
from rootstock.coordinator.registry import NetVersion
from rootstock.coordinator.service.uploads.dedup import WORTHWHILE_BYTES
from rootstock.deploy.cli.coordinator.tables import status_tables
from rootstock.deploy.client import OperatorClient
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.config import DataConfig, NetworkConfig, SiteConfig
from rootstock.site_agent.identity import IdentityFiles
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.wire.client import CoordinatorClient
from rootstock.site_agent.wire.upload import Shipment, what_was_sent
from tests.support.coordinator_server import (
    CHUNK,
    Lab,
    LabMaker,
    Running,
    Teacher,
    messages_of,
    stalled,
    version_of,
)
from tests.support.line import line_to

NEW = "conv3_1.weight"
"""The one tensor that a tailored task module does not have from the net: 9% of its bytes."""


Shared = tuple[Lab, Lab, Teacher, Teacher]
Lie = Callable[[dict[str, Any]], None]


def in_net(
    running: Running, lab: Lab, teacher: Teacher, operation: OperationKind = OperationKind.FOUND
) -> NetVersion | None:
    """Ship a teacher and make the next net version of it."""
    receipt = lab.ship(teacher)
    return version_of(running, receipt.submission_id, operation)


def tailored(lab: Lab, teacher: Teacher, category: str, *names: str, seed: int = 7) -> Teacher:
    """Make a teacher whose task module differs from another's in the tensors of these names."""
    entry = teacher.manifest.task_modules["classification"]
    tensors = read(teacher.files[entry.digest], entry)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        tensors[name] = torch.randn(tensors[name].shape, generator=generator)
    path = lab.folder / f"g-tailored-{category}-{seed}.safetensors"
    made = lab.teacher(category, seed)
    blob = write(path, tensors)
    manifest = made.manifest.model_copy(update={"task_modules": {"classification": blob}})
    return Teacher(manifest, {**made.files, blob.digest: path})


def task_module(teacher: Teacher) -> BlobEntry:
    return teacher.manifest.task_modules["classification"]


def missing_of(begun: pb.BeginUploadResponse, entry: BlobEntry) -> pb.MissingBlob:
    return next(blob for blob in begun.missing if blob.digest == entry.digest)


def arrived(running: Running, teacher: Teacher) -> bool:
    return all(
        running.store.local_path(blob.digest).read_bytes()
        == teacher.files[blob.digest].read_bytes()
        for blob in teacher.manifest.blobs()
    )


@pytest.fixture
def shared(coordinator: Running, lab: LabMaker) -> Shared:
    """A net of one teacher, and another lab's that shares nine tenths of its bytes with it."""
    cat, dog = lab("cat-lab"), lab("dog-lab")
    base = cat.teacher("cat")
    in_net(coordinator, cat, base)
    return cat, dog, base, tailored(dog, base, "dog", NEW)


def client_of(
    dog: Lab, address: str, folder: Path, teacher: Teacher
) -> tuple[CoordinatorClient, Spool, SpoolEntry]:
    """Return an agent's client and the teacher in its spool."""
    data = DataConfig(kind="digits", class_name="1", rest=("5", "6"), part=2, parts=5)
    config = SiteConfig(
        site="dog-lab",
        coordinator=address,
        state=folder,
        category="dog",
        data=data,
        network=NetworkConfig(idle_seconds=20, retry_cap_seconds=0.1),
    )
    spool = Spool(folder / "spool", pytest.fail, dog.coordinator_key)
    with spool.staging() as staging:
        for digest, path in teacher.files.items():
            (staging / digest).write_bytes(path.read_bytes())
        manifest = teacher.manifest
        entry = spool.commit(staging, manifest, "run")
    dog.credentials.write(IdentityFiles(folder).credentials)
    client = CoordinatorClient(config, threading.Event(), lambda *_: None)
    client.plan()
    return client, spool, entry


def test_a_blob_of_which_the_net_holds_nine_tenths_travels_as_one_tenth(
    coordinator: Running, shared: Shared, tmp_path: Path
) -> None:
    _, dog, _, teacher = shared
    blob = task_module(teacher)
    seen = []
    with line_to(int(coordinator.address.rpartition(":")[2]), 1e9) as line:
        client, spool, entry = client_of(dog, line.address, tmp_path / "site", teacher)
        before = line.sent
        shipment = Shipment(
            client,
            entry,
            dog.sign(entry.manifest_bytes),
            lambda done, total: seen.append((done, total)),
        )
        receipt = shipment.send()
        on_the_wire = line.sent - before
        client.close()
    assert arrived(coordinator, teacher)
    small = sum(each.size for each in teacher.manifest.blobs() if each.digest != blob.digest)
    assert shipment.sent - small < blob.size / 10 < blob.size
    assert shipment.left_out == held_bytes(blob, set(blob.tensors) - {NEW})
    assert shipment.sent == entry.size - shipment.left_out
    # With the manifest, headers of chunks and the calls.
    assert shipment.sent < on_the_wire < shipment.sent + 20_000 < entry.size / 5
    assert seen[-1] == (entry.size, entry.size)
    assert all(earlier <= later for earlier, later in pairwise(seen))
    spool.note_sent(entry, shipment.sent)
    assert entry.sent == shipment.sent
    assert what_was_sent(shipment.sent, entry.size) == (
        f"sent {shipment.sent / 1e3:.1f} KB of {entry.size / 1e3:.1f} KB: the coordinator holds "
        "the rest"
    )
    assert coordinator.registry.uploads.held_bytes() == {receipt.submission_id: shipment.left_out}
    with OperatorClient(coordinator.paths.state) as operator:
        answer = operator.status()
    (told,) = (each for each in answer.submissions if each.site == "dog-lab")
    assert (told.bytes_received, told.bytes_held) == (entry.size, shipment.left_out)
    console = Console(width=200)
    with console.capture() as printed:
        console.print(status_tables(answer)[0])
    assert "100% of 0.8 MB, 89% held before" in printed.get()
    leftovers = [path for path in coordinator.paths.incoming.rglob("*") if path.is_file()]
    assert leftovers == []


def test_an_agent_that_does_not_know_of_it_sends_everything(
    coordinator: Running, shared: Shared
) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest)
    blob = missing_of(begun, task_module(teacher))
    assert not blob.held_tensors
    sent = sum(len(message.data) for message in messages_of(teacher, begun.upload_id, blob))
    assert sent == blob.size
    dog.ship(teacher)
    assert arrived(coordinator, teacher)
    assert coordinator.registry.uploads.held_bytes() == {}


def test_only_what_is_worth_it_is_left_out(coordinator: Running, shared: Shared) -> None:
    _, dog, base, _ = shared
    entry = task_module(base)
    large = [name for name in entry.tensors if name.endswith("weight")]
    other = tailored(dog, base, "horse", *large)
    same = held_bytes(entry, set(entry.tensors) - set(large))
    assert 0 < same < WORTHWHILE_BYTES
    begun = dog.begin(other.manifest, leaves_out=True)
    assert not missing_of(begun, task_module(other)).held_tensors
    dog.ship(other, leaves_out=True)
    assert arrived(coordinator, other)


def test_what_only_another_labs_submission_or_samples_have_is_not_held(
    coordinator: Running, lab: LabMaker
) -> None:
    cat, dog = lab("cat-lab"), lab("dog-lab")
    samples = {"images": torch.rand(6, 3, 32, 32), "labels": torch.tensor([1.0, 0.0] * 3)}
    base = cat.teacher("cat", samples=samples)
    receipt = cat.ship(base)
    teacher = tailored(dog, base, "dog", NEW)
    wanted = missing_of(dog.begin(teacher.manifest, leaves_out=True), task_module(teacher))
    assert not wanted.held_tensors
    # The positive control: once it is in the net, it is; the samples still are not.
    version_of(coordinator, receipt.submission_id)
    taken = samples | {"labels": torch.tensor([0.0, 1.0] * 3)}  # another blob, the same images
    both = dog.teacher("dog", 8, samples=taken)
    both = Teacher(
        both.manifest.model_copy(update={"task_modules": teacher.manifest.task_modules}),
        {**both.files, **teacher.files},
    )
    begun = dog.begin(both.manifest, leaves_out=True)
    assert (
        len(missing_of(begun, task_module(teacher)).held_tensors)
        == len(task_module(teacher).tensors) - 1
    )
    assert both.manifest.shared_samples is not None
    assert not missing_of(begun, both.manifest.shared_samples.blob).held_tensors


def test_the_same_tensors_stay_left_out_over_cuts_restarts_and_net_versions(
    coordinator: Running, shared: Shared, lab: LabMaker, state: Path
) -> None:
    cat, dog, base, teacher = shared
    first = dog.begin(teacher.manifest, leaves_out=True)
    blob = missing_of(first, task_module(teacher))
    assert list(blob.held_tensors) == sorted(set(task_module(teacher).tensors) - {NEW})
    stalled(dog, teacher, first.upload_id, blob, chunks=3).cancel()
    # Another category module comes in; then the first version is taken back with it.
    in_net(coordinator, cat, _with_g(cat.teacher("cow", 3), base), OperationKind.NEW_CATEGORY)
    resumed = missing_of(dog.begin(teacher.manifest, leaves_out=True), task_module(teacher))
    assert resumed.durable_offset == 3 * CHUNK
    assert resumed.held_tensors == blob.held_tensors
    stalled(dog, teacher, first.upload_id, resumed, chunks=5).cancel()
    roll_back(coordinator.context, 1, "not wanted", and_later=True)
    coordinator.stop()
    again = Running(state)
    try:
        back = lab("dog-lab", address=again.address)
        begun = back.begin(teacher.manifest, leaves_out=True)
        resumed = missing_of(begun, task_module(teacher))
        assert resumed.durable_offset == 8 * CHUNK
        assert resumed.held_tensors == blob.held_tensors
        left = list(messages_of(teacher, begun.upload_id, resumed))
        kept = blob.size - held_bytes(task_module(teacher), blob.held_tensors)
        assert sum(len(message.data) for message in left) == kept - 8 * CHUNK
        assert back.ship(teacher, leaves_out=True).submission_id == first.upload_id
        assert arrived(again, teacher)
        # What is no longer in the net is not held for anyone new.
        other = tailored(back, base, "horse", NEW, seed=9)
        begun = back.begin(other.manifest, leaves_out=True)
        assert not missing_of(begun, task_module(other)).held_tensors
    finally:
        again.stop()


def test_a_coordinator_that_ended_while_it_filled_a_blob_up_does_it_again(
    coordinator: Running, shared: Shared, lab: LabMaker, state: Path
) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    blob = missing_of(begun, task_module(teacher))
    sent = b"".join(m.data for m in messages_of(teacher, begun.upload_id, blob))
    stalled(dog, teacher, begun.upload_id, blob, chunks=len(sent) // CHUNK).cancel()
    coordinator.stop()
    # What a kill leaves between the last byte and the proof.
    (part,) = (state / "incoming" / "dog-lab").glob("*.part")
    with part.open("ab") as file:
        file.write(sent[part.stat().st_size :])
    part.with_name(f"{blob.digest}.filling").write_bytes(b"half of it")
    again = Running(state)
    try:
        back = lab("dog-lab", address=again.address)
        resumed = missing_of(back.begin(teacher.manifest, leaves_out=True), task_module(teacher))
        assert resumed.durable_offset == len(sent)
        back.ship(teacher, leaves_out=True)
        assert arrived(again, teacher)
        assert not list(part.parent.iterdir())
    finally:
        again.stop()


def _moved(header: dict[str, Any]) -> None:
    fields = header[NEW]["data_offsets"]
    header[NEW]["data_offsets"] = [fields[0] + (1 << 30), fields[1] + (1 << 30)]


def _reshaped(header: dict[str, Any]) -> None:
    header["fc6.weight"]["shape"] = header["fc6.weight"]["shape"][::-1]


def _swapped(header: dict[str, Any]) -> None:
    """Two held tensors of one size change places: every range is in bounds."""
    first, second = header["conv3_1.bias"], header["conv3_2.bias"]
    first["data_offsets"], second["data_offsets"] = second["data_offsets"], first["data_offsets"]


@pytest.mark.parametrize(
    ("lie", "error", "message"),
    [
        (_moved, SchemaError, "tensors stand end to end"),
        (_reshaped, SchemaError, r"tensor 'fc6.weight' is F32 \[.*\] in the file, F32 \[.*\] in"),
        (_swapped, IntegrityError, "filled in, has SHA-256 .*; send it as a whole"),
        (None, LimitError, "the header claims"),
    ],
    ids=["out of bounds", "reshaped", "swapped", "huge header"],
)
def test_a_lying_header_is_refused_and_the_blob_then_comes_as_a_whole(
    coordinator: Running, shared: Shared, lie: Lie | None, error: type[RootstockError], message: str
) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    blob = missing_of(begun, task_module(teacher))
    sent = b"".join(m.data for m in messages_of(teacher, begun.upload_id, blob))
    with pytest.raises(error, match=message):
        dog.upload(_chunked(begun.upload_id, blob.digest, _with_header(sent, lie)))
    again = missing_of(dog.begin(teacher.manifest, leaves_out=True), task_module(teacher))
    assert (again.durable_offset, list(again.held_tensors)) == (0, [])
    # One that was told otherwise before is told to begin again, not that its blob is bad.
    with pytest.raises(UnreachableError, match="can no longer deduplicate blob"):
        dog.upload(_chunked(begun.upload_id, blob.digest, sent))
    dog.ship(teacher, leaves_out=True)
    assert arrived(coordinator, teacher)
    assert coordinator.registry.uploads.held_bytes() == {}


def test_wrong_bytes_of_a_tensor_that_travels_are_refused(
    coordinator: Running, shared: Shared
) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    blob = missing_of(begun, task_module(teacher))
    sent = bytearray(b"".join(m.data for m in messages_of(teacher, begun.upload_id, blob)))
    sent[-1] ^= 1
    with pytest.raises(IntegrityError, match="send it as a whole"):
        dog.upload(_chunked(begun.upload_id, blob.digest, bytes(sent)))
    assert not coordinator.store.has(blob.digest)
    assert not list((coordinator.paths.incoming / "dog-lab").iterdir())


def test_a_stream_that_is_too_short_is_no_upload_and_too_long_is_refused(shared: Shared) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    blob = missing_of(begun, task_module(teacher))
    held = held_bytes(task_module(teacher), blob.held_tensors)
    sent = b"".join(m.data for m in messages_of(teacher, begun.upload_id, blob))
    answer = dog.upload(_chunked(begun.upload_id, blob.digest, sent[:-100]))
    assert answer.durable_offset == len(sent) - 100
    with pytest.raises(SchemaError, match="truncated"):
        dog.commit(begun.upload_id)
    for other in begun.missing:
        if other.digest != blob.digest:
            dog.send(teacher, begun.upload_id, other)
    here = held + len(sent) - 100
    with pytest.raises(SchemaError, match=f"truncated: {here} of {blob.size} bytes are here"):
        dog.commit(begun.upload_id)
    rest = _chunked(begun.upload_id, blob.digest, sent[-100:] + b"more", offset=len(sent) - 100)
    with pytest.raises(SchemaError, match="in all"):
        dog.upload(rest)
    dog.ship(teacher, leaves_out=True)


def test_an_agent_may_be_replaced_by_an_older_or_a_newer_one_half_way(
    coordinator: Running, shared: Shared
) -> None:
    _, dog, _, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    stalled(dog, teacher, begun.upload_id, missing_of(begun, task_module(teacher)), 3).cancel()
    whole = missing_of(dog.begin(teacher.manifest), task_module(teacher))
    assert (whole.durable_offset, list(whole.held_tensors)) == (0, [])
    stalled(dog, teacher, begun.upload_id, whole, chunks=2).cancel()
    # Most is still to come: without the held tensors it is less.
    newer = missing_of(dog.begin(teacher.manifest, leaves_out=True), task_module(teacher))
    assert (newer.durable_offset, bool(newer.held_tensors)) == (0, True)
    whole = missing_of(dog.begin(teacher.manifest), task_module(teacher))
    stalled(dog, teacher, begun.upload_id, whole, chunks=whole.size // CHUNK - 2).cancel()
    newer = missing_of(dog.begin(teacher.manifest, leaves_out=True), task_module(teacher))
    assert newer.durable_offset == (whole.size // CHUNK - 2) * CHUNK
    assert not newer.held_tensors
    dog.ship(teacher, leaves_out=True)
    assert arrived(coordinator, teacher)
    assert coordinator.registry.uploads.held_bytes() == {}


def test_a_module_that_the_disk_lost_is_no_reason_to_lose_the_upload(
    coordinator: Running, shared: Shared, tmp_path: Path
) -> None:
    _, dog, base, teacher = shared
    begun = dog.begin(teacher.manifest, leaves_out=True)
    assert missing_of(begun, task_module(teacher)).held_tensors
    source = coordinator.store.local_path(task_module(base).digest)
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    source.chmod(0o644)
    source.write_bytes(data)
    client, _, entry = client_of(dog, coordinator.address, tmp_path / "site", teacher)
    shipment = Shipment(client, entry, dog.sign(entry.manifest_bytes))
    shipment.send()
    client.close()
    assert arrived(coordinator, teacher)
    # The first try left tensors out, the second did not.
    assert shipment.sent > entry.size
    assert what_was_sent(shipment.sent, entry.size) == f"sent {shipment.sent / 1e3:.1f} KB"


@pytest.mark.parametrize("coordinator", [{"max_open_bytes_per_site": 1_500_000}], indirect=True)
def test_the_quota_counts_whole_blobs(shared: Shared) -> None:
    _, dog, base, teacher = shared
    dog.begin(teacher.manifest, leaves_out=True)
    other = tailored(dog, base, "horse", NEW, seed=9)
    with pytest.raises(UnreachableError, match="quota: with this one"):
        dog.begin(other.manifest, leaves_out=True)


def _with_g(teacher: Teacher, base: Teacher) -> Teacher:
    """Return a teacher with another's task module."""
    modules = base.manifest.task_modules
    manifest = teacher.manifest.model_copy(update={"task_modules": modules})
    return Teacher(manifest, {**base.files, **teacher.files})


def _with_header(sent: bytes, lie: Lie | None) -> bytes:
    """Return what is sent with a header that lies, as long as it was."""
    (length,) = struct.unpack("<Q", sent[:8])
    if lie is None:
        return struct.pack("<Q", 1 << 40) + sent[8:]
    header = json.loads(sent[8 : 8 + length])
    lie(header)
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    # Longer numbers push the data back: what follows is cut, as many bytes travel.
    return (struct.pack("<Q", len(text)) + text + sent[8 + length :])[: len(sent)]


def _chunked(upload_id: str, digest: str, data: bytes, offset: int = 0) -> list[pb.UploadRequest]:
    messages = []
    for at in range(0, len(data), CHUNK):
        piece = data[at : at + CHUNK]
        messages.append(pb.UploadRequest(offset=offset + at, data=piece, crc32=zlib.crc32(piece)))
    messages[0].upload_id, messages[0].digest, messages[0].stripped = upload_id, digest, True
    return messages
