"""Strong random views of a few images, for a teacher at hand to answer.

A teacher labels whatever it is shown (METHODS 1f), so views may be changed far beyond what a label
would survive: moved, zoomed, turned, recoloured, two images mixed (Zhang et al., 2018) or one
pasted into another (Yun et al., 2019).

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rootstock.common.distillation.augmentation import augment
from rootstock.common.distillation.settings import AugmentConfig

STRONG = AugmentConfig(shift=0.2, zoom=0.4, rotation=20, colour=0.4)
_RANGE = 2.0
"""Largest value of a pixel either way, in the nets' units."""
_BLENDED, _PASTED = 0.25, 0.5
"""Shares of views that are blends of two images, and one image with a window of another."""


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
