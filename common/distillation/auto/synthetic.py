"""Synthetic images that need no data: dead leaves, whose statistics resemble photographs'.

Shapes that occlude each other, of sizes from a power law, coloured and lightly textured (Lee,
Mumford and Huang, 2001; as training images: Baradad et al., 2021). A teacher's answers on them say
something about places of its input that dreams, which all look sure, leave out.

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nets.spec import Shape

_LEAVES = 40
"""Shapes an image: enough to cover it."""
_LARGEST, _SMALLEST = 0.5, 0.04
"""A leaf's radius, as shares of the side."""
_RANGE = 2.0
"""Largest value of a pixel either way, in the nets' units."""


def dead_leaves(count: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """Draw `count` images of `shape` (C, S, S), in [−2, 2] in the units of the nets' input.

    The generator, on the CPU, is the only source of randomness.
    """
    channels, side, _ = shape
    rows_SS, columns_SS = torch.meshgrid(
        torch.arange(side).float(), torch.arange(side).float(), indexing="ij"
    )

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    images_NCSS = (2 * _RANGE * uniform(count, channels, 1, 1) - _RANGE).repeat(1, 1, side, side)
    for _ in range(_LEAVES):
        # The cube makes small leaves frequent, as in a photograph of things at all distances.
        radius = ((_LARGEST - _SMALLEST) * uniform(count, 1, 1) ** 3 + _SMALLEST) * side
        aspect = 0.2 + 0.8 * uniform(count, 1, 1)
        power = 1 + 3 * uniform(count, 1, 1)  # from a rhombus over an ellipse towards a box
        angle = math.pi * uniform(count, 1, 1)
        x = columns_SS - side * uniform(count, 1, 1)
        y = rows_SS - side * uniform(count, 1, 1)
        along = (x * angle.cos() + y * angle.sin()).abs() / radius
        across = (y * angle.cos() - x * angle.sin()).abs() / (radius * aspect)
        inside_NSS = along**power + across**power < 1
        colour = torch.randn(count, channels, 1, 1, generator=generator)
        grain = torch.randn(count, channels, side // 4, side // 4, generator=generator)
        texture = F.interpolate(grain, size=(side, side), mode="bilinear")
        leaf = colour + 0.8 * uniform(count, 1, 1, 1) * texture
        images_NCSS = torch.where(inside_NSS[:, None], leaf, images_NCSS)
    return images_NCSS.clamp(-_RANGE, _RANGE)
