"""The header of a safetensors file, which a peer wrote: every number is capped before use."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.protocol import Limits
from rootstock.common.weights.schema import DTYPES

MAX_HEADER_BYTES = 1 << 20
"""VGG-16's header has 3 KB; 1 MiB allows thousands of tensors and is all that is parsed."""

MAX_TENSORS = 4096
_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,200}")  # as a manifest may list; safe in any message
MAX_DIMENSIONS = 8


class HeaderTensor(NamedTuple):
    """Where a tensor stands in a file: `begin` and `end` count from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(
    file: FileIO, path: Path, limits: Limits, *, size: int | None = None
) -> tuple[dict[str, HeaderTensor], bytes]:
    """Read the header from the start of an open file.

    Parameters
    ----------
    file, path
        The file, and its name in messages.
    limits
        Caps.
    size
        Bytes of the whole file that the header is of, where the open one leaves tensors out; None:
        it is whole.

    Returns
    -------
    (dict, bytes)
        Name to `HeaderTensor` in file order; and the bytes read, for the file's hash.

    Raises
    ------
    LimitError, SchemaError
        See `rootstock.common.weights.safetensors_io.read_header`.
    """
    size = os.fstat(file.fileno()).st_size if size is None else size
    if size > limits.max_blob_bytes:
        raise LimitError(f"{path}: has {size} bytes, the limit is {limits.max_blob_bytes}")
    prefix = file.read(8)
    if len(prefix) < 8:
        raise SchemaError(f"{path}: has {size} bytes; a safetensors file has at least 8")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER_BYTES:
        raise LimitError(
            f"{path}: the header claims {length} bytes, the limit is {MAX_HEADER_BYTES}"
        )
    if 8 + length > size:
        raise SchemaError(f"{path}: the header claims {length} bytes, the file has {size}")
    text = file.read(length)
    if len(text) != length:
        raise SchemaError(f"{path}: ends inside the header; send the blob again")
    fields = _parse_json(text, path)
    if len(fields) > MAX_TENSORS:
        raise LimitError(f"{path}: names {len(fields)} tensors, the limit is {MAX_TENSORS}")
    places = sorted(
        ((name, _place(name, value, 8 + length, path)) for name, value in fields.items()),
        key=lambda item: (item[1].begin, item[1].end),
    )
    expected = 8 + length
    for name, place in places:
        if place.begin != expected:
            raise SchemaError(
                f"{path}: tensor '{name}' begins at byte {place.begin}, the one before it ends "
                f"at {expected}; tensors stand end to end"
            )
        expected = place.end
    if expected != size:
        raise SchemaError(f"{path}: the tensors end at byte {expected}, the file has {size}")
    return dict(places), prefix + text


def _parse_json(text: bytes, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key stands twice")  # two readers could choose differently
        return fields

    try:
        fields = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, huge ints
        raise SchemaError(f"{path}: the header is not a JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise SchemaError(f"{path}: the header is not a JSON object but {type(fields).__name__}")
    fields.pop("__metadata__", None)  # free text of the writer; covered by the file's digest
    for name in fields:
        if _NAME.fullmatch(name) is None:
            raise SchemaError(
                f"{path}: the tensor name {name[:80]!a} does not fit {_NAME.pattern}; rename it"
            )
    return fields


def _place(name: str, value: Any, data_begin: int, path: Path) -> HeaderTensor:
    """Check one header field; offsets become absolute."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise SchemaError(
            f"{path}: tensor '{name}' needs exactly the keys dtype, shape and data_offsets"
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise SchemaError(
            f"{path}: tensor '{name}' has dtype {str(dtype)[:40]!r}; known: {', '.join(DTYPES)}"
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise SchemaError(
            f"{path}: tensor '{name}': shape and data_offsets must be lists of whole numbers"
        )
    if len(shape) > MAX_DIMENSIONS:
        raise LimitError(
            f"{path}: tensor '{name}' has {len(shape)} dimensions, the limit is {MAX_DIMENSIONS}"
        )
    begin, end = offsets
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise SchemaError(
            f"{path}: tensor '{name}' claims {end - begin} bytes, {dtype} {shape} needs {needed}"
        )
    return HeaderTensor(dtype, tuple(shape), data_begin + begin, data_begin + end)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 53 for item in value
    )
