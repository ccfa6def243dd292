"""Rotation prediction: a task that every lab has, whatever its images show (paper 004, 3.1).

Shapes: N images, C channels, S side; M channels and H/W height and width of x = f(I).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.settings import TaskLearningSettings
from rootstock.common.distillation.task_module import train_module
from rootstock.common.errors import DataError
from rootstock.common.nets.training import in_batches

TURNS = 4
"""Quarter turns, 0 to 3, anticlockwise: classes of a rotation head."""


def turned(images_NCSS: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn every square image by a random number of quarter turns.

    Returns the turned images (N, C, S, S), and how often each was turned (N), int64. The generator,
    on the CPU, is the only source of randomness.
    """
    turns_N = torch.randint(TURNS, (len(images_NCSS),), generator=generator)
    out_NCSS = images_NCSS.clone(memory_format=torch.preserve_format)
    for turns in range(TURNS):
        chosen_N = (turns_N == turns).to(images_NCSS.device)
        out_NCSS[chosen_N] = quarter_turned(images_NCSS[chosen_N], turns)
    return out_NCSS, turns_N


def quarter_turned(images_NCSS: Tensor, turns: int) -> Tensor:
    """Turn square images anticlockwise by so many quarter turns."""
    height, width = images_NCSS.shape[-2:]
    if height != width:
        raise DataError(
            f"images of {height}×{width} cannot be turned by 90°; rotation prediction needs square "
            "ones"
        )
    return torch.rot90(images_NCSS, turns, (2, 3))


class RotationSettings(TaskLearningSettings):
    """Settings that train a rotation head on a few hundred images."""

    batch_size: int = Field(default=64, ge=2, le=65_536)


FEWEST_IMAGES = 20
"""Below, neither what a head learns nor how it is judged means anything."""
JUDGING = 0.3
"""Share of the images that judge; none of their turns is learned from."""


def learn_rotation_head(
    head: nn.Sequential, category_module: nn.Module, images_NCSS: Tensor, settings: RotationSettings
) -> float:
    """Train a rotation head, in place, above a category module that stays as it is.

    The head gives `TURNS` outputs, and is left frozen and in evaluation mode. Images are as f takes
    them; no labels are needed. The same settings give the same bits on one device.

    Returns the share of turns that it tells, 0 to 1, on images that it was not learned from; chance
    is 1/4.
    """
    if len(images_NCSS) < FEWEST_IMAGES:
        raise DataError(
            f"a rotation head cannot be learned from {len(images_NCSS)} images; give "
            f"{FEWEST_IMAGES} or more, they need no labels"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    judged, learned = (
        _every_turn(category_module, part_NCSS) for part_NCSS in set_apart(images_NCSS, generator)
    )

    def loss_at(_: int) -> Tensor:
        chosen = torch.randint(len(learned[1]), (settings.batch_size,), generator=generator)
        return F.cross_entropy(head(learned[0][chosen]), learned[1][chosen])

    train_module(head, settings, loss_at)
    with torch.inference_mode():
        return float((head(judged[0]).argmax(1) == judged[1]).float().mean())


def set_apart(images_NCSS: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the images that judge, and those that are learned from, drawn by a generator."""
    order_N = torch.randperm(len(images_NCSS), generator=generator)
    judging = math.ceil(JUDGING * len(images_NCSS))
    return images_NCSS[order_N[:judging]], images_NCSS[order_N[judging:]]


def _every_turn(category_module: nn.Module, images_NCSS: Tensor) -> tuple[Tensor, Tensor]:
    """Return f's features of every image at every turn (4N, M, H, W), and the turns (4N)."""
    every = torch.cat([quarter_turned(images_NCSS, turns) for turns in range(TURNS)])
    turns_N = torch.arange(TURNS).repeat_interleave(len(images_NCSS))
    return in_batches(category_module, every), turns_N
