"""Safetensors in and out: every byte checked against its manifest entry, never unpickled.

The format: 8 bytes little-endian header length, a JSON header
``{name: {"dtype", "shape", "data_offsets": [begin, end]}}``, then the tensors' raw bytes, end to
end. Written and read here rather than by the safetensors package so that a file and each of
its tensors are hashed in the one pass that moves them, with no copy of the net in memory. Files are
the package's own format in both directions (the tests hold that).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rootstock.common.errors import IntegrityError, NotFoundError, SchemaError
from rootstock.common.files import replacing, storage_errors
from rootstock.common.protocol import Limits
from rootstock.common.weights.manifest import BlobEntry, TensorEntry
from rootstock.common.weights.safetensors_header import MAX_TENSORS, HeaderTensor, parse_header
from rootstock.common.weights.schema import DTYPES, dtype_name, require_fit

DEFAULT_LIMITS = Limits()

M = TypeVar("M", bound=nn.Module)


def write(path: Path, tensors: Mapping[str, Tensor]) -> BlobEntry:
    """Write tensors to a safetensors file, durably, and describe it.

    The same tensors give the same bytes, so the same digest. Constant memory beyond the tensors,
    save for one contiguous CPU copy at a time of those that need it.
    """
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise SchemaError(f"{path}: {len(tensors)} tensors; a blob holds 1 to {MAX_TENSORS}")
    dtypes = {name: dtype_name(name, tensor.dtype) for name, tensor in tensors.items()}
    # Wide elements first, as the safetensors package does: every tensor is then aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = _header_bytes(order, tensors, dtypes)
    whole = hashlib.sha256(header)
    size = len(header)
    entries: dict[str, TensorEntry] = {}
    with replacing(path) as file:
        file.write(header)
        for name in order:
            data = _raw(tensors[name])
            file.write(data)
            whole.update(data)
            size += data.nbytes
            entries[name] = TensorEntry(
                dtype=dtypes[name],
                shape=tuple(tensors[name].shape),
                sha256=hashlib.sha256(data).hexdigest(),
            )
    return BlobEntry(digest=whole.hexdigest(), size=size, tensors=entries)


def read_header(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> dict[str, HeaderTensor]:
    """Read a file's header, with every number in it capped before it is used.

    Returns the tensors by name in file order. They fill the file from the header to its end, with
    no gap and no overlap.
    """
    with _opened(path) as file:
        header, _ = parse_header(file, path, limits)
        return header


def stream(
    path: Path, entry: BlobEntry, *, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[str, Tensor]]:
    """Yield one verified tensor after the other, holding no more than one.

    Each tensor has matched its own digest when it is yielded; the digest of the whole file is
    known, and checked, after the last.
    """
    with _opened(path) as file:
        header, raw_header = parse_header(file, path, limits)
        require_entry(header, entry, size=os.fstat(file.fileno()).st_size, what=str(path))
        whole = hashlib.sha256(raw_header)
        for name, place in header.items():
            # At most the bytes that the file has been seen to hold are allocated.
            tensor = torch.empty(place.shape, dtype=DTYPES[place.dtype])
            data = _raw(tensor)
            if not _fill(file, data):
                raise SchemaError(f"{path}: ends inside tensor '{name}'; send the blob again")
            digest = hashlib.sha256(data).hexdigest()
            if digest != entry.tensors[name].sha256:
                raise IntegrityError(
                    f"{path}: tensor '{name}' has SHA-256 {digest}, the manifest says "
                    f"{entry.tensors[name].sha256}; write the manifest anew from the file"
                )
            whole.update(data)
            yield name, tensor
            del tensor, data  # before the next one is allocated
        if whole.hexdigest() != entry.digest:
            raise IntegrityError(
                f"{path}: has SHA-256 {whole.hexdigest()}, the manifest says {entry.digest}; "
                "send the blob again"
            )


def read(path: Path, entry: BlobEntry) -> dict[str, Tensor]:
    """Read a file whose every tensor, and the whole, matches the entry.

    The entry's own size is the cap, which is right for entries that were admitted before.
    """
    limits = Limits(max_blob_bytes=max(entry.size, 1 << 10))
    return dict(stream(path, entry, limits=limits))


def load_module(module: nn.Module, path: Path, entry: BlobEntry) -> None:
    """Load a module's weights in place; names, shapes and dtypes must match exactly.

    The module of an entry that does not fit it is left untouched.
    """
    require_fit(module, entry, what=str(path))
    module.load_state_dict(read(path, entry), strict=True)


def load_frozen(module: M, path: Path, entry: BlobEntry, device: torch.device | str = "cpu") -> M:
    """Load a module's weights, move it to a device and return it frozen and in evaluation mode."""
    load_module(module, path, entry)
    return module.eval().requires_grad_(False).to(device)


def require_entry(
    header: Mapping[str, HeaderTensor], entry: BlobEntry, *, size: int, what: str
) -> None:
    """Refuse a file's header that differs from its manifest entry; says both sides."""
    if size != entry.size:
        raise SchemaError(f"{what}: has {size} bytes, the manifest says {entry.size}")
    if header.keys() != entry.tensors.keys():
        odd = sorted(header.keys() ^ entry.tensors.keys())
        where = "file" if odd[0] in header else "manifest"
        raise SchemaError(f"{what}: tensor '{odd[0]}' is only in the {where}; both list the same")
    for name, place in header.items():
        said = entry.tensors[name]
        if (place.dtype, place.shape) != (said.dtype, said.shape):
            raise SchemaError(
                f"{what}: tensor '{name}' is {place.dtype} {list(place.shape)} in the file, "
                f"{said.dtype} {list(said.shape)} in the manifest"
            )


def _raw(tensor: Tensor) -> memoryview:
    """View a tensor's elements as bytes (a contiguous CPU copy only if it is not one yet)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    elements: Any = flat.view(torch.uint8).numpy()
    return memoryview(elements)


def _header_bytes(
    order: list[str], tensors: Mapping[str, Tensor], dtypes: Mapping[str, str]
) -> bytes:
    fields: dict[str, Any] = {}
    begin = 0
    for name in order:
        end = begin + tensors[name].numel() * tensors[name].element_size()
        fields[name] = {
            "dtype": dtypes[name],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _fill(file: FileIO, data: memoryview) -> bool:
    """Read until `data` is full; one read of Linux gives less than 2 GiB."""
    while data:
        count = file.readinto(data)
        if not count:
            return False
        data = data[count:]
    return True


def _opened(path: Path) -> FileIO:
    with storage_errors(path):
        try:
            return path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: there is no such file") from error
