"""Images for a teacher at hand to answer: synthetic ones, and strong random views of a few.

Synthetic images need no data. They are dead leaves, whose statistics resemble photographs': shapes
that occlude each other, of sizes from a power law, coloured and lightly textured (Lee, Mumford and
Huang, 2001; as training images: Baradad et al., 2021). A teacher's answers on them say something
about places of its input that dreams, which all look sure, leave out.

A teacher labels whatever it is shown (METHODS 1f), so views may be changed far beyond what a label
would survive: moved, zoomed, turned, recoloured, two images mixed (Zhang et al., 2018) or one
pasted into another (Yun et al., 2019).

Shapes: N images, C channels, H/W height and width, S side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.augmentation import augment
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.nets.spec import Shape

_LEAVES = 40
"""Shapes an image: enough to cover it."""
_LARGEST, _SMALLEST = 0.5, 0.04
"""A leaf's radius, as shares of the side."""
_RANGE = 2.0
"""Largest value of a pixel either way, in the nets' units."""
STRONG = AugmentConfig(shift=0.2, zoom=0.4, rotation=20, colour=0.4)
_BLENDED, _PASTED = 0.25, 0.5
"""Shares of views that are blends of two images, and one image with a window of another."""


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


def strong_views(
    images_NCHW: Tensor, count: int, *, mirror: bool, generator: torch.Generator
) -> Tensor:
    """Return `count` changed images, each image's turn as often as any other's.

    Images are in the nets' units. `mirror`: whether a mirrored image still shows the same thing.
    The generator, on the CPU, is the only source of randomness.
    """
    device = images_NCHW.device
    if count == 0:
        return images_NCHW[:0]
    rounds = -(-count // len(images_NCHW))
    order = torch.cat(
        [torch.randperm(len(images_NCHW), generator=generator) for _ in range(rounds)]
    )[:count]
    # Drawn and warped on the CPU, so that a seed means the same views everywhere.
    chosen = images_NCHW.cpu()[order]
    changed = augment(chosen, STRONG, mirror=mirror, generator=generator).clamp(-_RANGE, _RANGE)
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    blended = mixtures(changed, changed[torch.randperm(count, generator=generator)], generator)
    pasted = _pasted(changed, changed[torch.randperm(count, generator=generator)], generator)
    views = torch.where(kind < _BLENDED + _PASTED, pasted, changed)
    return torch.where(kind < _BLENDED, blended, views).to(device)


def mixtures(first_NCHW: Tensor, second_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Return weighted means of pairs of images, weights uniform."""
    weight = torch.rand(len(first_NCHW), 1, 1, 1, generator=generator).to(first_NCHW)
    return weight * first_NCHW + (1 - weight) * second_NCHW


def _pasted(under_NCHW: Tensor, over_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    count, _, *size = under_NCHW.shape
    inside = torch.ones(count, 1, 1, 1, dtype=torch.bool)
    for axis, side in enumerate(size, start=2):
        centre = side * torch.rand(count, 1, generator=generator)
        reach = side * (0.05 + 0.5 * torch.rand(count, 1, generator=generator))
        shape = [count, 1, 1, 1]
        shape[axis] = side
        inside = inside & ((torch.arange(side) - centre).abs() < reach).reshape(shape)
    return torch.where(inside, over_NCHW, under_NCHW)
