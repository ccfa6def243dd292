"""Trained nets, kept by the digest of what decides their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from torch import nn

from rootstock.common.documents import Document
from rootstock.common.weights import safetensors_io


def cached(
    cache: Path,
    config: Document,
    modules: Mapping[str, nn.Module],
    train: Callable[[], None],
) -> None:
    """Load what was trained with that configuration, or train it and keep it.

    Parameters
    ----------
    cache
        Folder.
    config
        Its digest is the file's name.
    modules
        Where weights go, by a name each; in evaluation mode and frozen afterwards.
    train
        Trains them in place.
    """
    path = cache / f"{config.content_digest()}.safetensors"
    if not path.exists():
        for module in modules.values():
            module.requires_grad_(True)
        train()
        tensors = {
            f"{name}{key}": value.detach().contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        cache.mkdir(parents=True, exist_ok=True)
        safetensors_io.write(path, tensors)
    else:
        tensors = safetensors.torch.load_file(path)
        for name, module in modules.items():
            module.load_state_dict({key: tensors[f"{name}{key}"] for key in module.state_dict()})
    for module in modules.values():
        module.eval().requires_grad_(False)
