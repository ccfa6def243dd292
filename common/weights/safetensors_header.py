"""The header of a safetensors file, which a peer wrote: every number is capped before use."""

from __future__ import annotations

import json
import math
import os
import struct
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from rootstock.common.documents import Document, first_problem
from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.protocol import Limits
from rootstock.common.weights.manifest import Dtype, TensorName
from rootstock.common.weights.schema import DTYPES

MAX_HEADER_BYTES = 1 << 20
"""VGG-16's header has 3 KB; 1 MiB allows thousands of tensors and is all that is parsed."""

MAX_TENSORS = 4096
MAX_DIMENSIONS = 8

_Natural = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Entry(Document):
    """A tensor's entry in the header: offsets count from the header's end."""

    model_config = ConfigDict(strict=True)

    dtype: Dtype
    shape: tuple[_Natural, ...]
    data_offsets: tuple[_Natural, _Natural]


_ENTRIES: TypeAdapter[dict[TensorName, _Entry]] = TypeAdapter(dict[TensorName, _Entry])


class HeaderTensor(NamedTuple):
    """A tensor's dtype, shape and bytes: `begin` and `end` count from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(
    file: FileIO, path: Path, limits: Limits, *, size: int | None = None
) -> tuple[dict[str, HeaderTensor], bytes]:
    """Read the header from the start of an open file, every number capped before it is used.

    Where the open file leaves tensors out, `size` is the bytes of the whole file that the header is
    of. Returns the tensors by name in file order, and the bytes read, for the file's hash.
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
    entries = _entries(text, path)
    if len(entries) > MAX_TENSORS:
        raise LimitError(f"{path}: names {len(entries)} tensors, the limit is {MAX_TENSORS}")
    header: dict[str, HeaderTensor] = {}
    reached = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = (8 + length + offset for offset in entry.data_offsets)
        if len(entry.shape) > MAX_DIMENSIONS:
            raise LimitError(
                f"{path}: tensor '{name}' has {len(entry.shape)} dimensions, the limit is "
                f"{MAX_DIMENSIONS}"
            )
        needed = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        if end - begin != needed:
            raise SchemaError(
                f"{path}: tensor '{name}' claims {end - begin} bytes, {entry.dtype} "
                f"{list(entry.shape)} needs {needed}"
            )
        if begin != reached:
            raise SchemaError(
                f"{path}: tensor '{name}' begins at byte {begin}, the one before it ends at "
                f"{reached}; tensors stand end to end"
            )
        reached = end
        header[name] = HeaderTensor(entry.dtype, entry.shape, begin, end)
    if reached != size:
        raise SchemaError(f"{path}: the tensors end at byte {reached}, the file has {size}")
    return header, prefix + text


def _entries(text: bytes, path: Path) -> dict[str, _Entry]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key stands twice")  # two readers could choose differently
        return fields

    try:
        fields = json.loads(text.decode(), object_pairs_hook=once)
        if isinstance(fields, dict):
            fields.pop("__metadata__", None)  # free text of the writer; in the file's digest
        return _ENTRIES.validate_json(json.dumps(fields))
    except ValidationError as error:
        raise SchemaError(
            f"{path}: the header breaks the format: {first_problem(error)}"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, huge ints
        raise SchemaError(f"{path}: the header is not a JSON object: {error}") from error
