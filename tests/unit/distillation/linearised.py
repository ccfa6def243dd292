"""The slow oracle for modules that branch: a copy whose layers are linear, run by its own forward.

Unlike the rules, this knows nothing of how a block is wired: torchvision's own forward does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class _Dummy(nn.Module):
    """A ReLU's dummy derivative; a layer that runs at several places counts them."""

    def __init__(self, path: str, masks: Mapping[str, Tensor], asked: list[str]) -> None:
        super().__init__()
        self.path, self.masks, self.asked, self.calls = path, masks, asked, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        name = self.path if self.path in self.masks else f"{self.path}{self.calls}"
        self.asked.append(name)
        return x * self.masks[name].to(x.dtype) if name in self.masks else x


class _Scale(nn.Module):
    """Eval BatchNorm without its shift."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) - self.norm(torch.zeros_like(x))


def linearised(
    module: nn.Module, masks: Mapping[str, Tensor] | None = None, asked: list[str] | None = None
) -> nn.Module:
    """Return a copy with dummy derivatives, averages for maxima, and no biases."""
    asked = [] if asked is None else asked
    copied = copy.deepcopy(module).eval()
    for path, layer in list(copied.named_modules()):
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            replaced: nn.Module = _Dummy(path, masks or {}, asked)
        elif isinstance(layer, nn.BatchNorm2d):
            replaced = _Scale(layer)
        elif isinstance(layer, nn.MaxPool2d):
            replaced = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
        else:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                layer.bias = None
            continue
        if not path:
            return replaced
        parent, _, name = path.rpartition(".")
        setattr(copied.get_submodule(parent), name, replaced)
    return copied


def slow_gradient(
    module: nn.Module,
    G: Tensor,
    channels: int,
    size_HW: tuple[int, ...],
    masks: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return d<G, linearised(x)>/dx for x of the given size."""
    x_NCHW = torch.zeros(len(G), channels, *size_HW, dtype=G.dtype, requires_grad=True)
    y = linearised(module, masks)(x_NCHW)
    assert y.shape == G.shape
    (D_NCHW,) = torch.autograd.grad(y, x_NCHW, G, create_graph=True)
    return D_NCHW.detach()
