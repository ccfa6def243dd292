"""Biases of an adapter from shipped channel means (METHODS 1d): D' holds no bias, means do.

Shapes: C channels of x = f(I), M channels of h(x) and of f_S(I).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import last_layer


def bias_from_means(adapter: Adapter, mean_x_C: Tensor, mean_target_M: Tensor) -> Adapter:
    """Set the first convolution's bias so that its mean output is what g_S is used to.

    Means are by channel, of x = f(I) over the owning lab's images and of f_S(I) over the images
    that g_S was trained with. The adapter, whose other convolutions keep their biases, is changed
    and returned.
    """
    spec = adapter.spec
    for what, mean, channels in (
        ("x", mean_x_C, spec.in_channels),
        ("the student's features", mean_target_M, spec.out_channels),
    ):
        if mean.shape != (channels,):
            raise TransplantError(
                f"means of {what} have shape {tuple(mean.shape)} and the adapter has {channels} "
                "channels there; take the statistics of the category module's last layers"
            )
    first = adapter.convolutions()[0]
    with torch.no_grad():
        input_C = adapter.beta * mean_x_C.to(adapter.beta)[adapter.permutation]
        passed_M = first.weight.sum((2, 3)) @ input_C
        first.bias.copy_(mean_target_M.to(adapter.beta) - passed_M)  # type: ignore[union-attr]  # built with a bias
    return adapter


def feature_means(
    category_module: nn.Sequential, statistics: Mapping[str, Tensor]
) -> Tensor | None:
    """Return channel means (C) of x = f(I) as shipped, or estimated from what was shipped.

    A lab that ships means ships x's under the name of f's last layer. One that ships only its conv
    outputs' leaves an estimate: with those taken as normal, the ReLU's mean is
    μ Φ(μ/σ) + σ φ(μ/σ). What the max-pool adds is then left out (on digits a factor of 1.39 to
    1.49, alike for teacher and student), which cost 4 points of zero-sample error there. None if
    the lab kept its statistics to itself.
    """
    exact = statistics.get(f"mean/{last_layer(category_module)}")
    if exact is not None:
        return exact
    # Estimated only where nothing but ReLUs and pools follow a convolution: after a BatchNorm or
    # a residual block, a convolution's moments say little about x.
    telling = [
        (name, layer) for name, layer in category_module.named_children() if not _passes_on(layer)
    ]
    if not telling or not isinstance(telling[-1][1], nn.Conv2d):
        return None
    keys = [f"{kind}/{telling[-1][0]}" for kind in ("mean", "variance")]
    if any(key not in statistics for key in keys):
        return None
    mean_C, variance_C = (statistics[key].double() for key in keys)
    return rectified_mean(mean_C, variance_C).float()


def _passes_on(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.Dropout | nn.Identity)


def rectified_mean(mean: Tensor, variance: Tensor) -> Tensor:
    """Return E max(z, 0) for normal z, element by element."""
    deviation = variance.clamp_min(1e-12).sqrt()
    ratio = mean / deviation
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    rectified: Tensor = mean * torch.special.ndtr(ratio) + deviation * density
    return rectified
