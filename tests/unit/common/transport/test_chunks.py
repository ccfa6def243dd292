import hashlib
import os
import signal
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    NotFoundError,
    RefusedError,
    SchemaError,
)
from rootstock.common.transport.chunks import SYNC_BYTES, ChunkReceiver, Span, chunks
from tests.support.small_disk import run_on_disk

DATA = bytes(range(256)) * 40  # 10,240 bytes
SIZE = 4096


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def receiver(folder: Path, data: bytes = DATA, cap: int = SIZE) -> ChunkReceiver:
    return ChunkReceiver(
        folder / "x.part",
        folder / "x",
        digest=digest(data),
        size=len(data),
        max_chunk_bytes=cap,
    )


def send(target: ChunkReceiver, data: bytes, offset: int) -> None:
    target.append(offset, data, zlib.crc32(data))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def test_a_blob_goes_through(source: Path, tmp_path: Path) -> None:
    with closing(receiver(tmp_path)) as target:
        for chunk in chunks(source, 0, SIZE):
            assert not target.complete
            target.append(*chunk)
        assert target.complete
        assert target.finish() == tmp_path / "x"
    assert (tmp_path / "x").read_bytes() == DATA
    assert not (tmp_path / "x.part").exists()
    assert target.durable_offset == len(DATA)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(size=st.integers(1, 300), total=st.integers(0, 700), cut=st.integers(0, 10))
def test_chunks_cover_a_file_from_any_offset(
    tmp_path: Path, size: int, total: int, cut: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA[:total])
    offset = min(total, cut * 70)
    pieces = list(chunks(path, offset, size))
    assert b"".join(piece.data for piece in pieces) == DATA[offset:total]
    assert all(piece.crc32 == zlib.crc32(piece.data) for piece in pieces)
    assert [p.offset for p in pieces] == list(range(offset, total, size))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 700), max_size=8),
    share=st.floats(0, 1),
)
def test_chunks_of_spans_are_full_from_any_offset(
    tmp_path: Path, size: int, cuts: list[int], share: float
) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA[:700])
    ends = sorted(cuts)
    spans = [Span(*pair) for pair in zip(ends[::2], ends[1::2], strict=False)]
    wanted = b"".join(DATA[begin:end] for begin, end in spans)
    offset = int(share * len(wanted))
    pieces = list(chunks(path, offset, size, spans))
    assert b"".join(piece.data for piece in pieces) == wanted[offset:]
    assert [p.offset for p in pieces] == list(range(offset, len(wanted), size))
    assert all(piece.crc32 == zlib.crc32(piece.data) for piece in pieces)


def test_spans_beyond_the_file_are_an_error(source: Path) -> None:
    with pytest.raises(SchemaError, match=r"Span\(begin=0, end=10241\) lies beyond .* 10240 bytes"):
        list(chunks(source, 0, SIZE, [Span(0, 10_241)]))
    with pytest.raises(SchemaError, match="offset 11 lies beyond the 10 bytes to send"):
        list(chunks(source, 11, SIZE, [Span(5, 15)]))


def test_chunks_of_what_is_not_there(source: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        list(chunks(tmp_path / "nowhere", 0, SIZE))
    with pytest.raises(SchemaError, match="offset 10241 lies beyond the 10240 bytes to send"):
        list(chunks(source, len(DATA) + 1, SIZE))
    assert list(chunks(source, len(DATA), SIZE)) == []


@pytest.mark.parametrize(
    ("offset", "data", "crc32", "kind", "rule"),
    [
        (SIZE, DATA[:10], 0, IntegrityError, "CRC-32 .* 00000000 was sent with it"),
        (0, DATA[:SIZE], None, SchemaError, "offset 0 .* been received, the next .* at 4096"),
        (SIZE - 1, DATA[:10], None, SchemaError, "been received"),
        (SIZE + 1, DATA[:10], None, SchemaError, "a gap before it, the next one starts at 4096"),
        (2 * SIZE, DATA[:10], None, SchemaError, "a gap before it"),
        (SIZE, bytes(SIZE + 1), None, LimitError, "chunk of 4097 bytes .* the limit is 4096"),
        (SIZE, b"", None, SchemaError, "is empty"),
        (1 << 63, b"x", None, SchemaError, "a gap"),
    ],
)
def test_a_bad_chunk_is_refused_and_the_good_one_still_fits(
    tmp_path: Path, offset: int, data: bytes, crc32: int | None, kind: type[RefusedError], rule: str
) -> None:
    with closing(receiver(tmp_path)) as target:
        send(target, DATA[:SIZE], 0)
        with pytest.raises(kind, match=rule):
            target.append(offset, data, zlib.crc32(data) if crc32 is None else crc32)
        assert target.offset == SIZE
        assert (tmp_path / "x.part").stat().st_size == SIZE
        send(target, DATA[SIZE : 2 * SIZE], SIZE)
        send(target, DATA[2 * SIZE :], 2 * SIZE)
        target.finish()
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_chunk_beyond_the_declared_size_is_refused(tmp_path: Path) -> None:
    with closing(receiver(tmp_path, DATA[:100])) as target:
        with pytest.raises(SchemaError, match="ends at 101, the manifest says 100 bytes"):
            send(target, DATA[:101], 0)
        send(target, DATA[:100], 0)
        with pytest.raises(SchemaError, match="ends at 101"):
            send(target, b"x", 100)
        send(target, b"", 100)
        target.finish()


def test_a_truncated_blob_is_refused_and_can_be_resumed(tmp_path: Path) -> None:
    with closing(receiver(tmp_path)) as target:
        send(target, DATA[:SIZE], 0)
        with pytest.raises(SchemaError, match="truncated: 4096 of 10240 bytes"):
            target.finish()
    with closing(receiver(tmp_path)) as target:
        assert target.offset == target.durable_offset == SIZE
        send(target, DATA[SIZE : 2 * SIZE], SIZE)
        send(target, DATA[2 * SIZE :], 2 * SIZE)
        target.finish()
    assert (tmp_path / "x").read_bytes() == DATA


def test_wrong_bytes_are_dropped_and_the_right_ones_then_fit(tmp_path: Path) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    for data, good in ((wrong, False), (DATA, True)):
        with closing(receiver(tmp_path, cap=len(DATA))) as target:
            assert target.offset == 0
            send(target, data, 0)
            if good:
                target.finish()
            else:
                with pytest.raises(IntegrityError, match=f"the manifest says {digest(DATA)}"):
                    target.finish()
                assert not (tmp_path / "x.part").exists()
                assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_byte_that_the_disk_lost_shows_at_the_end(tmp_path: Path) -> None:
    with closing(receiver(tmp_path, cap=len(DATA))) as target:
        send(target, DATA[:SIZE], 0)
    part = tmp_path / "x.part"
    part.write_bytes(bytes([1]) + part.read_bytes()[1:])
    with closing(receiver(tmp_path, cap=len(DATA))) as target:
        send(target, DATA[SIZE:], SIZE)
        with pytest.raises(IntegrityError, match="have SHA-256"):
            target.finish()


def test_a_partial_file_larger_than_the_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(DATA + b"x")
    with pytest.raises(SchemaError, match="has 10241 bytes, the manifest says 10240"):
        receiver(tmp_path)


def test_nothing_is_durable_before_a_flush(tmp_path: Path) -> None:
    with closing(receiver(tmp_path)) as target:
        send(target, DATA[:SIZE], 0)
        assert (target.offset, target.durable_offset) == (SIZE, 0)
        assert target.sync() == SIZE
        assert target.durable_offset == SIZE


def test_long_stretches_between_flushes_come_back_as_they_were(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 40
    with closing(receiver(tmp_path, data, cap=1 << 20)) as target:
        for offset in range(0, len(data), 1 << 20):
            send(target, data[offset : offset + (1 << 20)], offset)
            if target.offset - target.durable_offset > SYNC_BYTES:
                assert target.sync() == target.offset
        target.finish()
    assert (tmp_path / "x").read_bytes() == data


def test_a_killed_receiver_goes_on_where_it_was(tmp_path: Path) -> None:
    program = """
import os, signal, sys, zlib
from pathlib import Path
from rootstock.common.transport.chunks import ChunkReceiver
data = bytes(range(256)) * 40
folder = Path(sys.argv[1])
target = ChunkReceiver(folder / "x.part", folder / "x", digest=sys.argv[2], size=len(data),
                       max_chunk_bytes=4096)
for offset in (0, 4096):
    chunk = data[offset:offset + 4096]
    target.append(offset, chunk, zlib.crc32(chunk))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), digest(DATA)])
    assert done.returncode == -signal.SIGKILL
    with closing(receiver(tmp_path)) as target:
        assert target.offset == 2 * SIZE
        send(target, DATA[2 * SIZE :], 2 * SIZE)
        target.finish()
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_full_disk_is_named_and_the_upload_resumes_after_it(tmp_path: Path) -> None:
    said = run_on_disk(
        tmp_path,
        """
import hashlib, zlib
from contextlib import closing
from rootstock.common.transport.chunks import ChunkReceiver
data = bytes(700_000)
ballast = disk / "ballast"
ballast.write_bytes(bytes(500_000))

def open_receiver():
    return ChunkReceiver(disk / "x.part", disk / "x", digest=hashlib.sha256(data).hexdigest(),
                         size=len(data), max_chunk_bytes=100_000)

def send(target):
    while not target.complete:
        chunk = data[target.offset:target.offset + 100_000]
        target.append(target.offset, chunk, zlib.crc32(chunk))

target = open_receiver()
try:
    send(target)
except StorageError as error:
    print(error)
offset = target.offset
target.leave()
assert offset == (disk / "x.part").stat().st_size == target.durable_offset > 0
ballast.unlink()
with closing(open_receiver()) as target:
    assert target.offset == offset
    send(target)
    print(target.finish().stat().st_size)
""",
    )
    assert "disk/x.part: No space left on device; free space" in said
    assert said.endswith("700000\n")


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    said = run_on_disk(
        tmp_path,
        """
# read-only
from rootstock.common.transport.chunks import ChunkReceiver
try:
    ChunkReceiver(disk / "x.part", disk / "x", digest="0" * 64, size=9, max_chunk_bytes=9)
except StorageError as error:
    print(error)
""",
        read_only=True,
    )
    assert "disk/x.part: Read-only file system; mount that disk writable" in said
