"""A blob without some of its tensors, and filled up again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootstock.common.errors import IntegrityError, RefusedError, SchemaError
from rootstock.common.transport.chunks import chunks
from rootstock.common.transport.dedup import (
    Place,
    fill_up,
    filling,
    held_bytes,
    kept_spans,
    tensor_bytes,
)
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import read_header, write
from tests.support.forged_blobs import change

TENSORS = {
    "wide": torch.arange(7, dtype=torch.float64),
    "weight": torch.linspace(0, 1, 4000).reshape(40, 100),
    "bias": torch.ones(40),
    "empty": torch.zeros(0, 3),
    "half": torch.ones(5, dtype=torch.float16),
    "mask": torch.tensor([True, False, True]),
}


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, BlobEntry]:
    path = tmp_path / "blob"
    return path, write(path, TENSORS)


def strip(path: Path, held: set[str]) -> Path:
    spans = kept_spans(read_header(path), path.stat().st_size, held)
    stripped = path.with_name("stripped")
    stripped.write_bytes(b"".join(chunk.data for chunk in chunks(path, 0, 1000, spans)))
    return stripped


def paths(path: Path) -> dict[str, Place]:
    return {name: Place(path, at.begin, at.end) for name, at in read_header(path).items()}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(held=st.sets(st.sampled_from(sorted(TENSORS))))
def test_whatever_is_left_out_is_filled_up(blob: tuple[Path, BlobEntry], held: set[str]) -> None:
    path, entry = blob
    stripped = strip(path, held)
    assert stripped.stat().st_size == entry.size - held_bytes(entry, held)
    whole = path.with_name("whole")
    fill_up(stripped, whole, entry, held, paths(path).__getitem__)
    assert whole.read_bytes() == path.read_bytes()
    assert not filling(whole).exists()


def test_spans_are_joined_where_nothing_is_left_out_between(blob: tuple[Path, BlobEntry]) -> None:
    path, entry = blob
    header = read_header(path)
    assert [tuple(span) for span in kept_spans(header, entry.size, set())] == [(0, entry.size)]
    cut = header["weight"]
    spans = [tuple(span) for span in kept_spans(header, entry.size, {"weight"})]
    assert spans == [(0, cut.begin), (cut.end, entry.size)]


def test_bytes_of_tensors(blob: tuple[Path, BlobEntry]) -> None:
    tensors = blob[1].tensors
    assert {name: tensor_bytes(tensors[name]) for name in tensors} == {
        name: tensor.nbytes for name, tensor in TENSORS.items()
    }


def test_what_a_blob_does_not_have_cannot_be_left_out(blob: tuple[Path, BlobEntry]) -> None:
    with pytest.raises(SchemaError, match="no tensor 'other' to leave out"):
        held_bytes(blob[1], {"other"})
    with pytest.raises(SchemaError, match="has 100 bytes, the tensors to leave out 16000"):
        held_bytes(change(blob[1], size=100), {"weight"})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda data: data[:-1], SchemaError, "ends 1 bytes early; send the blob as a whole"),
        (lambda data: data[:40], SchemaError, "ends inside the header"),
        (lambda data: data + b"\0", SchemaError, "bytes follow the last tensor"),
        (lambda data: data[:-1] + b"\7", IntegrityError, "has SHA-256 .* send it as a whole"),
        (lambda data: data.replace(b"bias", b"bios"), SchemaError, "'bias' is only in the man"),
        (lambda data: data.replace(b"[40,100]", b"[100,40]"), SchemaError, r"F32 \[100, 40\]"),
        (lambda data: data.replace(b"[40,100]", b"[50,100]"), SchemaError, "claims 16000 bytes"),
        (lambda data: b"\xff" * 8 + data[8:], RefusedError, "the limit is"),
        (lambda data: bytes(len(data)), SchemaError, "the header is not a JSON object"),
    ],
)
def test_what_makes_no_blob_is_refused_and_leaves_nothing(
    blob: tuple[Path, BlobEntry], spoil: object, error: type[Exception], message: str
) -> None:
    path, entry = blob
    stripped, whole = strip(path, {"weight"}), path.with_name("whole")
    assert callable(spoil)
    stripped.write_bytes(spoil(stripped.read_bytes()))
    with pytest.raises(error, match=message):
        fill_up(stripped, whole, entry, {"weight"}, paths(path).__getitem__)
    assert not whole.exists()
    assert not filling(whole).exists()


def test_a_held_tensor_with_other_bytes_or_too_few_is_refused(
    blob: tuple[Path, BlobEntry],
) -> None:
    path, entry = blob
    stripped, whole = strip(path, {"weight"}), path.with_name("whole")
    other = path.with_name("other")
    other.write_bytes(bytes(16_000))
    for place, message in (
        (Place(other, 0, 16_000), "has SHA-256"),
        (Place(other, 0, 15_996), "has 16000 bytes, the one held here 15996"),
        (Place(other, 4, 16_004), "ends 4 bytes early"),
    ):
        with pytest.raises(RefusedError, match=message):
            fill_up(stripped, whole, entry, {"weight"}, {"weight": place}.__getitem__)
    fill_up(stripped, whole, entry, {"weight"}, paths(path).__getitem__)
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == entry.digest
