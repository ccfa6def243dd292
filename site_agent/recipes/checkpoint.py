"""Checkpoints of training: safetensors, written whole or not at all. Never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from rootstock.common.errors import StorageError
from rootstock.common.nets.training import optimiser_state, prefixed, restore_optimiser, under
from rootstock.common.weights import safetensors_io

EPOCH = "epoch"


Optimisers = Mapping[str, torch.optim.Optimizer]
"""By the name that their state has in the file."""


def save(path: Path, modules: Mapping[str, nn.Module], optimisers: Optimisers, epoch: int) -> None:
    """Write weights, the optimisers' states and the number of epochs done.

    Raises
    ------
    StorageError
        If the disk is full or read-only; the checkpoint before is still in place.
    """
    tensors = {EPOCH: torch.tensor(epoch, dtype=torch.int64)}
    for name, module in modules.items():
        tensors |= prefixed(f"module/{name}/", module.state_dict())
    for name, optimiser in optimisers.items():
        tensors |= prefixed(f"{name}/", optimiser_state(optimiser))
    safetensors_io.write(path, tensors)


def restore(path: Path, modules: Mapping[str, nn.Module], optimisers: Optimisers) -> int:
    """Bring back what `save` wrote, and return the number of epochs done; 0 without a file.

    Raises
    ------
    StorageError
        If the file is not a whole checkpoint of these modules; names the remedy.
    """
    if not path.exists():
        return 0
    try:
        tensors = safetensors.torch.load_file(path)
        for name, module in modules.items():
            module.load_state_dict(under(f"module/{name}/", tensors))
        for name, optimiser in optimisers.items():
            restore_optimiser(optimiser, under(f"{name}/", tensors))
        return int(tensors[EPOCH])
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise StorageError(
            f"{path}: is not a checkpoint of this teacher net ({error}); "
            "remove it, and training starts over"
        ) from error
