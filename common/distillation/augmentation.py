"""Random changes of images, drawn from a generator so that they can be drawn again.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from common.model import Document


class AugmentConfig(Document):
    """Random changes of training images, drawn anew each epoch."""

    shift: float = Field(default=0.06, ge=0, le=0.5)
    """Largest shift each way, as a share of the image's side."""
    zoom: float = Field(default=0.0, ge=0, le=0.9)
    """Zoom factor drawn from 1−zoom to 1+zoom."""
    rotation: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation each way, in degrees."""
    flip: bool | None = None
    """Mirror left-right every other time; None: yes, but not for digits."""
    colour: float = Field(default=0.0, ge=0, le=1)
    """Largest relative change of brightness, contrast and of each channel."""
    erase: float = Field(default=0.0, ge=0, le=0.5)
    """Side of a random square set to the mean, as a share of the image's side."""


def augment(
    x_NCHW: Tensor, config: AugmentConfig, *, mirror: bool, generator: torch.Generator
) -> Tensor:
    """Shift, zoom, rotate, mirror and recolour images; what moves in from outside is 0, mid-grey.

    Parameters
    ----------
    x_NCHW
        Normalised images, float32.
    config
        Largest changes.
    mirror
        Whether the dataset bears mirroring; used where `config.flip` is None.
    generator
        The only source of randomness.

    Returns
    -------
    Changed images, same shape.
    """
    images = x_NCHW.shape[0]

    def draw(*shape: int) -> Tensor:
        """Return uniform numbers in [−1, 1)."""
        return torch.rand(*shape, generator=generator) * 2 - 1

    flip = mirror if config.flip is None else config.flip
    sign = torch.where(draw(images) < 0, -1.0, 1.0) if flip else torch.ones(images)
    angle = draw(images) * math.radians(config.rotation)
    scale = 1 / (1 + draw(images) * config.zoom)
    shift = draw(images, 2) * (2 * config.shift)  # an image's side is 2 in grid units
    if flip or config.rotation or config.zoom or config.shift:
        cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
        top = torch.stack((cos * sign, -sin, shift[:, 0]), dim=1)
        bottom = torch.stack((sin * sign, cos, shift[:, 1]), dim=1)
        theta = torch.stack((top, bottom), dim=1)  # N×2×3
        grid = functional.affine_grid(theta, list(x_NCHW.shape), align_corners=False)
        x_NCHW = functional.grid_sample(x_NCHW, grid, padding_mode="zeros", align_corners=False)
    if config.colour:
        channels = x_NCHW.shape[1]
        contrast = 1 + config.colour * draw(images, 1, 1, 1)
        tint = 1 + 0.5 * config.colour * draw(images, channels, 1, 1)
        brightness = config.colour * draw(images, 1, 1, 1)
        x_NCHW = x_NCHW * contrast * tint + brightness
    if config.erase:
        x_NCHW = x_NCHW * _keep(x_NCHW, config.erase, draw(images, 2))
    return x_NCHW


def _keep(x_NCHW: Tensor, side: float, centre_N2: Tensor) -> Tensor:
    """Return a N×1×H×W mask that is 0 in one square an image, at a centre in [−1, 1)²."""
    height, width = x_NCHW.shape[2:]
    rows = torch.linspace(-1, 1, height).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).view(1, 1, 1, width)
    y, x = centre_N2[:, 0].view(-1, 1, 1, 1), centre_N2[:, 1].view(-1, 1, 1, 1)
    inside = ((rows - y).abs() < side) & ((columns - x).abs() < side)
    return (~inside).to(x_NCHW.dtype)
