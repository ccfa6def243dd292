"""Pseudo-gradients the slow way: a linearised, fully convolutional copy of a module and autograd.

What the paper's "back-back-propagation" does. Independent of the rules it checks: it knows how
layers run forward, not how their gradients run back.

Shapes: N batch, C channels, H/W height and width, S side of an enlarged G.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from common.nets.adapter import Adapter


def oracle(
    module: nn.Module,
    G: Tensor,
    size_HW: tuple[int, int],
    channels: int,
    nominal_CHW: tuple[int, int, int],
    masks: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return d<G, linearised(x)>/dx for x of the given size; keeps the graph to the weights."""
    x_NCHW = torch.zeros(len(G), channels, *size_HW, dtype=G.dtype, requires_grad=True)
    y = _run(module, x_NCHW, _Context(nominal_CHW, dict(masks or {})), "")
    G = G if G.ndim == y.ndim else G[:, :, None, None]
    assert y.shape == G.shape
    (D_NCHW,) = torch.autograd.grad(y, x_NCHW, G, create_graph=True)
    return D_NCHW


class _Context:
    """The nominal shape of the map at hand, and what is pending of a Flatten."""

    def __init__(self, nominal: tuple[int, ...], masks: dict[str, Tensor]) -> None:
        self.nominal, self.masks = nominal, masks
        self.window: tuple[int, ...] | None = None


def _run(layer: nn.Module, x: Tensor, context: _Context, path: str) -> Tensor:
    if isinstance(layer, nn.Sequential | Adapter):
        if isinstance(layer, Adapter):
            x = layer.beta.to(x.dtype) * x[:, layer.permutation]
        for name, child in layer.named_children():
            x = _run(child, x, context, f"{path}.{name}" if path else name)
        return x
    if isinstance(layer, nn.ReLU):
        return x * context.masks[path].to(x.dtype) if path in context.masks else x
    if isinstance(layer, nn.Dropout | nn.Identity):
        return x
    if isinstance(layer, nn.Flatten):
        context.window, context.nominal = context.nominal, (torch.Size(context.nominal).numel(),)
        return x
    if isinstance(layer, nn.Linear):
        window = context.window or (layer.in_features, 1, 1)
        context.window, context.nominal = None, (layer.out_features,)
        return F.conv2d(x, layer.weight.reshape(-1, *window))
    if isinstance(layer, nn.MaxPool2d):
        layer = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    with torch.no_grad():
        probe = layer(torch.zeros(1, *context.nominal, dtype=x.dtype))
    context.nominal = tuple(probe.shape[1:])
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, layer.weight, None)
    output: Tensor = layer(x)  # pools: linear as they are
    return output
