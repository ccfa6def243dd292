"""Safetensors files as no honest writer makes them."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import DEFAULT_LIMITS, read_header


def write_raw(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> None:
    """Write any header (JSON value or bytes) and any data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def field(begin: int, end: int, shape: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def entry_of(path: Path) -> BlobEntry:
    """Describe a file truthfully, whatever is in it."""
    data = path.read_bytes()
    tensors = {
        name: {
            "dtype": place.dtype,
            "shape": place.shape,
            "sha256": hashlib.sha256(data[place.begin : place.end]).hexdigest(),
        }
        for name, place in read_header(path, limits=DEFAULT_LIMITS).items()
    }
    return BlobEntry.model_validate(
        {"digest": hashlib.sha256(data).hexdigest(), "size": len(data), "tensors": tensors}
    )


def change(entry: BlobEntry, **values: Any) -> BlobEntry:
    """Return an entry with other values, validated."""
    return BlobEntry.model_validate({**entry.model_dump(), **values})


def change_tensor(entry: BlobEntry, name: str, **values: Any) -> BlobEntry:
    """Return an entry with another claim about one tensor."""
    tensors = entry.model_dump()["tensors"]
    tensors[name] |= values
    return change(entry, tensors=tensors)
