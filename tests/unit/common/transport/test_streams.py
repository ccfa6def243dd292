"""Uploads and downloads over a real server."""

import asyncio
import hashlib
import os
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    NotFoundError,
    RefusedError,
    SchemaError,
    UnreachableError,
)
from rootstock.common.transport.channel import open_channel
from rootstock.common.transport.chunks import ChunkReceiver
from rootstock.common.transport.download import download
from rootstock.common.transport.idle import IdleWatch
from rootstock.common.transport.receive import receive
from rootstock.common.transport.status import error_from_rpc
from rootstock.common.transport.upload import upload_blob, upload_requests
from rootstock.protos.rootstock.federation.v1.federation_pb2 import DownloadResponse, UploadRequest
from rootstock.protos.rootstock.federation.v1.federation_pb2_grpc import FederationStub
from tests.support.identities import client_credentials
from tests.support.transport_server import Server

Wire = tuple[Server, FederationStub]
DATA = os.urandom(1_000_001)
DIGEST = hashlib.sha256(DATA).hexdigest()
CHUNK = 1 << 16


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.fixture(autouse=True)
def _size(wire: Wire) -> None:
    wire[0].size = len(DATA)


def upload(stub: FederationStub, path: Path, offset: int = 0, **options: Any) -> list[int]:
    seen: list[int] = []
    size = upload_blob(
        stub.Upload,
        path,
        upload_id="u",
        digest=DIGEST,
        offset=offset,
        chunk_bytes=CHUNK,
        progress=seen.append,
        **options,
    )
    assert size == len(DATA)
    return seen


def part(server: Server) -> Path:
    return server.folder / f"{DIGEST}.part"


def wait_for(size: int, path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() or path.stat().st_size != size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- uploads ---------------------------------------------------------------------------------------


def test_an_upload_arrives_whole(wire: Wire, source: Path) -> None:
    seen = upload(wire[1], source)
    assert (wire[0].folder / DIGEST).read_bytes() == DATA
    assert not part(wire[0]).exists()
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)


def test_a_cut_upload_keeps_what_came_and_resumes_there(wire: Wire, source: Path) -> None:
    server, stub = wire
    cut = threading.Event()

    def messages() -> Iterator[UploadRequest]:
        for count, message in enumerate(
            upload_requests(source, upload_id="u", digest=DIGEST, offset=0, chunk_bytes=CHUNK)
        ):
            if count == 5:
                cut.wait()  # the lab has gone silent: the call is cut under it
                return
            yield message

    call = stub.Upload.future(messages())
    wait_for(5 * CHUNK, part(server))
    call.cancel()
    cut.set()
    assert not (server.folder / DIGEST).exists()
    seen = upload(stub, source, offset=5 * CHUNK)
    assert seen[0] == 6 * CHUNK
    assert (server.folder / DIGEST).read_bytes() == DATA


def test_an_upload_of_which_all_bytes_are_there_is_finished(wire: Wire, source: Path) -> None:
    part(wire[0]).write_bytes(DATA)
    upload(wire[1], source, offset=len(DATA))
    assert (wire[0].folder / DIGEST).read_bytes() == DATA


def spoil(message: UploadRequest, **values: Any) -> UploadRequest:
    fields: dict[str, Any] = {
        "upload_id": message.upload_id,
        "digest": message.digest,
        "offset": message.offset,
        "data": message.data,
        "crc32": message.crc32,
    }
    return UploadRequest(**{**fields, **values})


def honest(source: Path) -> list[UploadRequest]:
    return list(upload_requests(source, upload_id="u", digest=DIGEST, offset=0, chunk_bytes=CHUNK))


def lies(source: Path) -> dict[str, tuple[list[UploadRequest], type[RefusedError], str]]:
    good = honest(source)
    wrong = bytes(len(good[3].data))
    big = bytes((1 << 20) + 1)
    extra = UploadRequest(offset=len(DATA), data=b"x", crc32=zlib.crc32(b"x"))
    return {
        "flipped": ([*good[:3], spoil(good[3], data=wrong), *good[4:]], IntegrityError, "CRC-32"),
        "forged": (
            [*good[:3], spoil(good[3], data=wrong, crc32=zlib.crc32(wrong)), *good[4:]],
            IntegrityError,
            "have SHA-256",
        ),
        "repeated": ([*good[:3], *good[2:]], SchemaError, "been received"),
        "out of order": ([*good[:2], good[3], good[2], *good[4:]], SchemaError, "a gap before it"),
        "oversized": (
            [good[0], spoil(good[1], data=big, crc32=zlib.crc32(big))],
            LimitError,
            "the limit is 1048576",
        ),
        "too long": ([*good, extra], SchemaError, "the manifest says 1000001"),
    }


@pytest.mark.parametrize(
    "lie", ["flipped", "forged", "repeated", "out of order", "oversized", "too long"]
)
def test_streams_that_lie_are_refused(wire: Wire, source: Path, lie: str) -> None:
    server, stub = wire
    messages, kind, rule = lies(source)[lie]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Upload(iter(messages), timeout=30)
    error = error_from_rpc(caught.value)
    assert type(error) is kind
    assert rule in str(error)
    assert not (server.folder / DIGEST).exists()
    # The same call without the lie goes through.
    if part(server).exists():
        part(server).unlink()
    assert stub.Upload(iter(honest(source)), timeout=30).durable_offset == len(DATA)
    assert (server.folder / DIGEST).read_bytes() == DATA


def test_a_truncated_stream_gets_its_offset_and_no_blob(wire: Wire, source: Path) -> None:
    server, stub = wire
    assert stub.Upload(iter(honest(source)[:4]), timeout=30).durable_offset == 4 * CHUNK
    assert not (server.folder / DIGEST).exists()
    upload(stub, source, offset=4 * CHUNK)


def test_a_silent_lab_is_left_with_its_bytes_kept(wire: Wire, source: Path) -> None:
    server, stub = wire
    server.idle_seconds = 0.3
    silent = threading.Event()

    def messages() -> Iterator[UploadRequest]:
        yield from honest(source)[:2]
        silent.wait()

    with pytest.raises(grpc.RpcError) as caught:
        stub.Upload(messages(), timeout=30)
    silent.set()
    error = error_from_rpc(caught.value)
    assert type(error) is UnreachableError
    assert "no chunk" in str(error)
    assert part(server).stat().st_size == 2 * CHUNK


def test_a_silent_coordinator_is_left(wire: Wire, source: Path) -> None:
    wire[0].stall_after = 0
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"made no progress for 0\.5 s"):
        upload(wire[1], source, idle_seconds=0.5)
    assert 0.5 <= time.monotonic() - started < 20
    wire[0].stall_after = None
    upload(wire[1], source, idle_seconds=0.5)


def test_a_coordinator_that_is_not_there_is_unreachable(source: Path) -> None:
    channel = open_channel("127.0.0.1:9", client_credentials())
    with pytest.raises(UnreachableError, match="UNAVAILABLE"):
        upload(FederationStub(channel), source)
    channel.close()


def test_an_error_of_the_labs_own_file_is_told_as_it_is(wire: Wire, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="gone: there is no such file to send"):
        upload(wire[1], tmp_path / "gone")
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(SchemaError, match="offset 5 lies beyond"):
        upload(wire[1], tmp_path / "short", offset=5)


# -- downloads -------------------------------------------------------------------------------------


def fetch(wire: Wire, path: Path, **options: Any) -> Path:
    values: dict[str, Any] = {"max_bytes": 1 << 21, **options}
    return download(wire[1].Download, DIGEST, path, **values)


@pytest.fixture
def target(tmp_path: Path, wire: Wire) -> Path:
    (wire[0].folder / DIGEST).write_bytes(DATA)
    return tmp_path / "lab" / "blob"


def test_a_download_arrives_whole(wire: Wire, target: Path) -> None:
    assert fetch(wire, target, size=len(DATA)) == target
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["blob"]


def test_a_blob_that_is_there_is_not_fetched(wire: Wire, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(DATA)
    (wire[0].folder / DIGEST).unlink()
    assert fetch(wire, target).read_bytes() == DATA
    target.write_bytes(DATA[:-1])
    with pytest.raises(NotFoundError):
        fetch(wire, target)


def test_a_cut_download_resumes_where_it_was(wire: Wire, target: Path) -> None:
    server = wire[0]
    server.responses = lambda sent: (r for r in sent if r.offset < 5 * CHUNK)
    with pytest.raises(UnreachableError, match=f"ended after {5 * CHUNK} bytes; try again"):
        fetch(wire, target)
    offsets: list[int] = []

    def note(sent: Iterator[DownloadResponse]) -> Iterator[DownloadResponse]:
        for response in sent:
            offsets.append(response.offset)
            yield response

    server.responses = note
    assert fetch(wire, target).read_bytes() == DATA
    assert offsets[0] == 5 * CHUNK


def test_a_download_of_which_all_bytes_are_there_is_finished(wire: Wire, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("blob.part").write_bytes(DATA)
    assert fetch(wire, target).read_bytes() == DATA


def test_a_silent_server_is_left_with_the_bytes_kept(wire: Wire, target: Path) -> None:
    wire[0].stall_after = 3
    with pytest.raises(UnreachableError, match=r"made no progress for 0\.5 s"):
        fetch(wire, target, idle_seconds=0.5)
    assert target.with_name("blob.part").stat().st_size == 3 * CHUNK
    wire[0].stall_after = None
    assert fetch(wire, target).read_bytes() == DATA


def changed(
    **values: object,
) -> Callable[[Iterator[DownloadResponse]], Iterator[DownloadResponse]]:
    def change(sent: Iterator[DownloadResponse]) -> Iterator[DownloadResponse]:
        for count, response in enumerate(sent):
            if count == 2:
                for name, value in values.items():
                    setattr(response, name, value)
            yield response

    return change


@pytest.mark.parametrize(
    ("values", "kind", "rule"),
    [
        ({"crc32": 1}, IntegrityError, "CRC-32"),
        ({"data": b"x", "crc32": zlib.crc32(b"x")}, SchemaError, "a gap before it"),
        ({"offset": 0}, SchemaError, "been received"),
    ],
)
def test_a_server_that_lies_is_caught(
    wire: Wire, target: Path, values: dict[str, object], kind: type[RefusedError], rule: str
) -> None:
    wire[0].responses = changed(**values)
    with pytest.raises(kind, match=rule):
        fetch(wire, target)
    wire[0].responses = lambda sent: sent
    target.with_name("blob.part").unlink()  # may hold a byte whose checksum was forged too
    fetch(wire, target)


def test_wrong_bytes_are_dropped_and_fetched_anew(wire: Wire, target: Path) -> None:
    path = wire[0].folder / DIGEST
    path.write_bytes(bytes(len(DATA)))
    with pytest.raises(IntegrityError, match="dropped"):
        fetch(wire, target)
    assert list(target.parent.iterdir()) == []
    path.write_bytes(DATA)
    assert fetch(wire, target).read_bytes() == DATA


def test_sizes_are_capped_before_a_byte_is_written(wire: Wire, target: Path) -> None:
    with pytest.raises(LimitError, match="has 1000001 bytes, the limit is 1000000"):
        fetch(wire, target, max_bytes=1_000_000)
    with pytest.raises(SchemaError, match="its entry says 1000002"):
        fetch(wire, target, size=1_000_002)
    assert not target.parent.exists()
    fetch(wire, target, max_bytes=1_000_001, size=1_000_001)


def test_a_useless_partial_file_does_not_stand_in_the_way(wire: Wire, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("blob.part").write_bytes(DATA + b"more")
    # As damage it is tried a few times: a peer that says so each time must not send for ever.
    with pytest.raises(IntegrityError, match=r"more than the peer has .*; it is removed"):
        fetch(wire, target)
    assert fetch(wire, target).read_bytes() == DATA


# -- idle watches ----------------------------------------------------------------------------------


def test_progress_keeps_a_call_alive() -> None:
    cancelled = threading.Event()
    with IdleWatch(cancelled.set, seconds=0.4, what="it") as watch:
        for _ in range(8):
            time.sleep(0.1)
            watch.progress()
        assert (cancelled.is_set(), watch.expired) == (False, False)
        assert cancelled.wait(10)
    assert watch.expired
    assert "it made no progress for 0.4 s" in str(watch.error())


class SlowProof(ChunkReceiver):
    """A receiver that takes its time over the proof, as one of many gigabytes does."""

    begun = threading.Event()
    go_on = threading.Event()

    def finish(self) -> Path:
        self.begun.set()
        assert self.go_on.wait(20)
        return super().finish()


async def test_whoever_takes_over_waits_until_the_proof_has_ended(tmp_path: Path) -> None:
    async def stream() -> AsyncIterator[UploadRequest]:
        yield UploadRequest(offset=0, data=DATA, crc32=zlib.crc32(DATA))

    receiver = SlowProof(
        tmp_path / "x.part", tmp_path / "x", digest=DIGEST, size=len(DATA), max_chunk_bytes=1 << 20
    )
    taking = asyncio.create_task(receive(stream(), receiver, room=asyncio.Semaphore(1)))
    assert await asyncio.to_thread(receiver.begun.wait, 20)
    for _ in range(2):
        taking.cancel()
        await asyncio.sleep(0.05)
        assert not taking.done()
    receiver.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert (tmp_path / "x").read_bytes() == DATA
