"""A blob's fit to a module: the same names, shapes and dtypes, no more, no less."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.weights.manifest import BlobEntry, Dtype

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by tensor name."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names of the dtypes that a manifest may hold."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(name: str, dtype: torch.dtype) -> Dtype:
    """Return safetensors' name of a dtype; refuse one that a manifest has no name for."""
    if dtype not in _NAMES:
        raise SchemaError(
            f"tensor '{name}' is {dtype}; a blob holds {', '.join(DTYPES)}: convert it"
        )
    return cast("Dtype", _NAMES[dtype])


def layout(module: nn.Module) -> Layout:
    """Return dtype and shape of every tensor in a module's state, by name.

    Works on modules of the meta device, which hold no numbers.
    """
    state = module.state_dict()
    return {name: (dtype_name(name, t.dtype), tuple(t.shape)) for name, t in state.items()}


def require_layout(expected: Layout, entry: BlobEntry, *, what: str) -> None:
    """Refuse an entry that lacks a tensor, has one too many, or one of another shape or dtype."""
    missing = sorted(expected.keys() - entry.tensors.keys())
    if missing:
        raise SchemaError(f"{what}: tensor '{missing[0]}' is missing ({len(missing)} in all)")
    extra = sorted(entry.tensors.keys() - expected.keys())
    if extra:
        raise SchemaError(
            f"{what}: tensor '{extra[0]}' has no place there ({len(extra)} in all); expected "
            f"{', '.join(sorted(expected)[:8])}{', ...' if len(expected) > 8 else ''}"
        )
    for name, (dtype, shape) in expected.items():
        tensor = entry.tensors[name]
        if tensor.shape != shape:
            raise SchemaError(
                f"{what}: tensor '{name}' has shape {list(tensor.shape)}, it must be {list(shape)}"
            )
        if tensor.dtype != dtype:
            raise SchemaError(f"{what}: tensor '{name}' is {tensor.dtype}, it must be {dtype}")


def require_fit(module: nn.Module, entry: BlobEntry, *, what: str) -> None:
    """Refuse an entry that does not list a module's very state."""
    require_layout(layout(module), entry, what=what)
