"""Upload deduplication: a blob travels without the tensors whose bytes its receiver has.

A stripped file is the blob's header as it is, then the bytes of the tensors that stay in it, in the
order of the file. Whoever has the very bytes of the others makes the blob of it again.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from rootstock.common.errors import IntegrityError, SchemaError
from rootstock.common.files import READ_BYTES, storage_errors, sync_folder
from rootstock.common.protocol import Limits
from rootstock.common.transport.chunks import Span
from rootstock.common.weights.manifest import BlobEntry, TensorEntry
from rootstock.common.weights.safetensors_header import HeaderTensor, parse_header
from rootstock.common.weights.safetensors_io import require_entry
from rootstock.common.weights.schema import DTYPES


class Place(NamedTuple):
    """The bytes of a tensor: in a file, from `begin` up to `end`."""

    path: Path
    begin: int
    end: int


def tensor_bytes(entry: TensorEntry) -> int:
    """Return the bytes of a tensor's data."""
    return math.prod(entry.shape) * DTYPES[entry.dtype].itemsize


def held_bytes(entry: BlobEntry, held: Collection[str]) -> int:
    """Return how many bytes of a blob do not travel when these tensors are left out."""
    for name in held:
        if name not in entry.tensors:
            raise SchemaError(
                f"blob {entry.digest} has no tensor {name[:80]!r} to leave out; leave out what "
                "its manifest lists"
            )
    count = sum(tensor_bytes(entry.tensors[name]) for name in held)
    if count > entry.size - 8:
        raise SchemaError(
            f"blob {entry.digest} has {entry.size} bytes, the tensors to leave out {count}; "
            "a manifest tells the sizes of the file that it describes"
        )
    return count


def kept_spans(header: Mapping[str, HeaderTensor], size: int, held: Collection[str]) -> list[Span]:
    """Return which bytes of a file travel when the tensors named `held` are left out, in order."""
    data = next((place.begin for place in header.values()), size)
    spans = [Span(0, data)]
    for name, place in header.items():
        if name in held:
            continue
        if place.begin == spans[-1].end:
            spans[-1] = Span(spans[-1].begin, place.end)
        else:
            spans.append(Span(place.begin, place.end))
    return spans


def fill_up(
    stripped: Path,
    whole: Path,
    entry: BlobEntry,
    held: Collection[str],
    place_of: Callable[[str], Place],
) -> None:
    """Make a blob of its stripped file, prove it, and put it at `whole`, durably; constant memory.

    It is written to `filling(whole)` first, which a crash may leave behind and the next try
    replaces; one call at a time for each `whole`. The stripped file's header is a peer's, and
    checked against the manifest's entry. `held` are the tensors that were left out, and `place_of`
    says where each is.
    """
    aside = filling(whole)
    with storage_errors(whole):
        try:
            with aside.open("wb") as out:
                digest = hashlib.sha256()
                for data in _pieces(stripped, entry, held, place_of):
                    out.write(data)
                    digest.update(data)
                if digest.hexdigest() != entry.digest:
                    raise IntegrityError(
                        f"blob {entry.digest}, with {len(held)} tensors that are held here filled "
                        f"in, has SHA-256 {digest.hexdigest()}; send it as a whole"
                    )
                out.flush()
                os.fsync(out.fileno())
            aside.replace(whole)
            sync_folder(whole.parent)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def filling(whole: Path) -> Path:
    """Return where `fill_up` writes before the blob is proved."""
    return whole.with_name(whole.name + ".filling")


def _pieces(
    stripped: Path, entry: BlobEntry, held: Collection[str], place_of: Callable[[str], Place]
) -> Iterator[bytes]:
    what = Path(f"blob {entry.digest}")  # how messages name it: not where it lies here
    limits = Limits(max_blob_bytes=max(entry.size, 1 << 10))  # its size was capped at the gate
    with stripped.open("rb", buffering=0) as file:
        header, raw = parse_header(file, what, limits, size=entry.size)
        require_entry(header, entry, size=entry.size, what=str(what))
        yield raw
        for name, tensor in header.items():
            if name in held:
                yield from _held(place_of(name), tensor.end - tensor.begin, name)
            else:
                yield from _read(file, tensor.end - tensor.begin, f"{what}: tensor '{name}'")
        if file.read(1):
            raise SchemaError(f"{what}: bytes follow the last tensor; send it as a whole")


def _held(place: Place, count: int, name: str) -> Iterator[bytes]:
    if place.end - place.begin != count:
        raise IntegrityError(
            f"tensor '{name}' has {count} bytes, the one held here {place.end - place.begin}; send "
            "the blob as a whole"
        )
    with place.path.open("rb", buffering=0) as file:
        file.seek(place.begin)
        yield from _read(file, count, f"the tensor held here for '{name}'")


def _read(file: FileIO, count: int, what: str) -> Iterator[bytes]:
    while count:
        data = file.read(min(count, READ_BYTES))
        if not data:
            raise SchemaError(f"{what} ends {count} bytes early; send the blob as a whole")
        count -= len(data)
        yield data
