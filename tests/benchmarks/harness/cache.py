"""What a run keeps for the next: decoded images, trained nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import safetensors.torch
from torch import Tensor, nn

from rootstock.common.documents import Document
from rootstock.common.nets.training import prefixed, under
from rootstock.common.weights import safetensors_io
from tests.benchmarks.harness.request import Folders


def kept(
    folders: Folders, name: str, make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the cache's tensors of that name; make them first if it has none."""
    path = folders.cache / f"{name}.safetensors"
    if path.exists():
        return safetensors.torch.load_file(path)
    tensors = {name: tensor.detach().contiguous() for name, tensor in make().items()}
    folders.cache.mkdir(parents=True, exist_ok=True)
    safetensors_io.write(path, tensors)
    return tensors


def cached(
    folders: Folders, config: Document, modules: Mapping[str, nn.Module], train: Callable[[], None]
) -> None:
    """Load what was trained with that configuration, or train it and keep it.

    Parameters
    ----------
    config
        Its digest is the file's name.
    modules
        Where weights go, by a prefix each; in evaluation mode and frozen afterwards.
    train
        Trains them in place.
    """

    def trained() -> dict[str, Tensor]:
        for module in modules.values():
            module.requires_grad_(True)
        train()
        states = (prefixed(name, module.state_dict()) for name, module in modules.items())
        return {name: tensor for state in states for name, tensor in state.items()}

    tensors = kept(folders, config.content_digest(), trained)
    for name, module in modules.items():
        module.load_state_dict(under(name, tensors))
        module.eval().requires_grad_(False)
