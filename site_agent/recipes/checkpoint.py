"""Checkpoints of training: safetensors, written whole or not at all. Never pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.errors import StorageError
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
        for key, value in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{index}/{key}"] = value.detach().cpu().contiguous()
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
            module.load_state_dict(_under(tensors, f"module/{name}/"))
        for name, optimiser in optimisers.items():
            _restore_optimiser(optimiser, _under(tensors, f"{name}/"))
        return int(tensors[EPOCH])
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise StorageError(
            f"{path}: is not a checkpoint of this teacher net ({error}); "
            "remove it, and training starts over"
        ) from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
