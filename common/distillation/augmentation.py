"""Random changes of images, drawn from a generator so that they can be drawn again.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from rootstock.common.distillation.problem import UNLABELLED
from rootstock.common.distillation.settings import AugmentConfig


def augment(
    x_NCHW: Tensor, config: AugmentConfig, *, mirror: bool, generator: torch.Generator
) -> Tensor:
    """Shift, zoom, rotate, mirror and recolour images; what moves in from outside is 0, mid-grey.

    `x_NCHW` are normalised images; `mirror` says whether the dataset bears mirroring, and counts
    where `config.flip` is None. The generator is the only source of randomness.
    """
    grid_NHW2 = _grid(x_NCHW, config, mirror=mirror, generator=generator)
    if grid_NHW2 is not None:
        x_NCHW = _sampled(x_NCHW, grid_NHW2, "bilinear")
    changed_NCHW, _ = _recoloured(x_NCHW, config, generator)
    return changed_NCHW


def augment_labelled(
    x_NCHW: Tensor,
    labels_NHW: Tensor,
    config: AugmentConfig,
    *,
    mirror: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Change images as `augment` does, from the same draws, and move labels of pixels with them.

    Labels are 1 the category, 0 the rest, `UNLABELLED`. No others come out, and none for what moves
    in from outside and for what is erased.
    """
    grid_NHW2 = _grid(x_NCHW, config, mirror=mirror, generator=generator)
    if grid_NHW2 is not None:
        x_NCHW, labels_NHW = moved(x_NCHW, labels_NHW, grid_NHW2)
    changed_NCHW, keep_N1HW = _recoloured(x_NCHW, config, generator)
    if keep_N1HW is not None:
        labels_NHW = labels_NHW.masked_fill(keep_N1HW[:, 0] == 0, UNLABELLED)
    return changed_NCHW, labels_NHW


def moved(x_NCHW: Tensor, labels_NHW: Tensor, grid_NHW2: Tensor) -> tuple[Tensor, Tensor]:
    """Take images and labels of their pixels from where the grid says, in [−1, 1].

    Images are interpolated, labels are not. Beyond the edge images are 0, and there is no label.
    """
    # One up, so that the zeros which move in are none of the labels.
    raised_N1HW = (labels_NHW + 1).nan_to_num(0.0)[:, None]
    raised_NHW = _sampled(raised_N1HW, grid_NHW2, "nearest")[:, 0]
    return (
        _sampled(x_NCHW, grid_NHW2, "bilinear"),
        (raised_NHW - 1).masked_fill(raised_NHW == 0, UNLABELLED),
    )


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Return uniform numbers in [−1, 1)."""
    return torch.rand(*shape, generator=generator) * 2 - 1


def _grid(
    x_NCHW: Tensor, config: AugmentConfig, *, mirror: bool, generator: torch.Generator
) -> Tensor | None:
    """Draw where each pixel comes from (N, H, W, 2), in [−1, 1]; None where it stays."""
    images = x_NCHW.shape[0]
    flip = mirror if config.flip is None else config.flip
    sign = torch.where(_draw(generator, images) < 0, -1.0, 1.0) if flip else torch.ones(images)
    angle = _draw(generator, images) * math.radians(config.rotation)
    scale = 1 / (1 + _draw(generator, images) * config.zoom)
    shift = _draw(generator, images, 2) * (2 * config.shift)  # a side is 2 in grid units
    if not (flip or config.rotation or config.zoom or config.shift):
        return None
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    top = torch.stack((cos * sign, -sin, shift[:, 0]), dim=1)
    bottom = torch.stack((sin * sign, cos, shift[:, 1]), dim=1)
    theta = torch.stack((top, bottom), dim=1)  # N×2×3
    return functional.affine_grid(theta, list(x_NCHW.shape), align_corners=False)


def _sampled(x_NCHW: Tensor, grid_NHW2: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(
        x_NCHW, grid_NHW2, mode=mode, padding_mode="zeros", align_corners=False
    )


def _recoloured(
    x_NCHW: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Return images in other colours, and 0 where they were erased (N, 1, H, W), if they were."""
    images, channels = x_NCHW.shape[:2]
    if config.colour:
        contrast = 1 + config.colour * _draw(generator, images, 1, 1, 1)
        tint = 1 + 0.5 * config.colour * _draw(generator, images, channels, 1, 1)
        brightness = config.colour * _draw(generator, images, 1, 1, 1)
        x_NCHW = x_NCHW * contrast * tint + brightness
    if not config.erase:
        return x_NCHW, None
    keep_N1HW = _keep(x_NCHW, config.erase, _draw(generator, images, 2))
    return x_NCHW * keep_N1HW, keep_N1HW


def _keep(x_NCHW: Tensor, side: float, centre_N2: Tensor) -> Tensor:
    """Return a N×1×H×W mask that is 0 in one square an image, at a centre in [−1, 1)²."""
    height, width = x_NCHW.shape[2:]
    rows = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    y, x = centre_N2[:, 0].view(-1, 1, 1, 1), centre_N2[:, 1].view(-1, 1, 1, 1)
    inside = ((rows - y).abs() < side) & ((columns - x).abs() < side)
    return (~inside).to(x_NCHW.dtype)
