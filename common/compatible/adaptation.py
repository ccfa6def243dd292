"""Unsupervised domain adaptation through rotations (paper 004, section 5.1; METHODS 4).

A category module f satisfies a rotation head on images of its own domain. The head is frozen, f
learns to satisfy it on unlabelled images of another domain, and goes back below the classifier g
of the first, which never changes: features that the head still understands g understands, too.

Shapes: N images, C channels, S side, B a minibatch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.compatible.batchnorm import FEWEST, TOGETHER, norms, re_estimate
from rootstock.common.compatible.rotation import (
    FEWEST_IMAGES,
    JUDGING,
    TURNS,
    quarter_turned,
    set_apart,
    turned,
)
from rootstock.common.documents import Document
from rootstock.common.errors import DataError
from rootstock.common.images import batches, normalise
from rootstock.common.nets.training import descend, device_of

OnStep = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a sentence."""


class AdaptationSettings(Document):
    """Settings of an adaptation: how long and how fast f learns."""

    steps: int = Field(default=300, ge=1, le=1_000_000)
    """At most; the paper takes 1,000 with a rate of 1e-5 and minibatches of 512."""
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    """Adam's, constant."""
    batch_size: int = Field(default=64, ge=2, le=65_536)
    check_steps: int = Field(default=20, ge=1)
    """Steps between looks at the images that judge, where the best f so far is kept."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)


class RotationAccuracy(Document):
    """Loss and accuracy of a rotation head on top of a category module; chance is 25%."""

    loss: float
    """Mean cross-entropy over every image at every turn."""
    accuracy: float = Field(ge=0, le=100)
    """Percent."""


@dataclass(frozen=True)
class Adaptation:
    """An adapted category module."""

    category_module: nn.Sequential
    """f, frozen and in evaluation mode. BatchNorm statistics are of the images learned from."""
    step: int
    """After which it was the best; 0: no step of learning made it better."""
    source: RotationAccuracy
    """On the images that judge, as the others, above f as it was."""
    re_estimated: RotationAccuracy
    """Above f with BatchNorm statistics of the images learned from."""
    adapted: RotationAccuracy
    learned_from: int
    judged_on: int


def adapt(
    category_module: nn.Sequential,
    rotation_head: nn.Sequential,
    images_NCSS: Tensor,
    settings: AdaptationSettings,
    on_step: OnStep = lambda *_: None,
) -> Adaptation:
    """Learn a category module's features of another domain from the turns of its images.

    The f with the least rotation loss on images set apart is kept; before the first step that is f
    with BatchNorm statistics of the new domain. No label has a part in it. Too few images for
    rotations or for BatchNorm statistics, and images that f does not take, are refused.

    Category module and rotation head, of `TURNS` outputs, stay as they are, the head's BatchNorm
    statistics as well: they are of the features that f is to give again. Images are uint8, on the
    CPU. The same settings give the same bits on one device.
    """
    judged_NCSS, learned_NCSS = _parts(category_module, images_NCSS, settings.seed)
    f = copy.deepcopy(category_module).eval().requires_grad_(False)
    source = rotation_accuracy(f, rotation_head, judged_NCSS)

    def looked() -> tuple[nn.Sequential, RotationAccuracy]:
        now = copy.deepcopy(f).requires_grad_(False)
        re_estimate(now, batches(learned_NCSS, device_of(now), fewest=TOGETHER))
        return now, rotation_accuracy(now, rotation_head, judged_NCSS)

    kept, best = looked()
    re_estimated, kept_step = best, 0
    for step in _steps(f, rotation_head, learned_NCSS, settings):
        if step % settings.check_steps == 0 or step == settings.steps:
            now, found = looked()
            if found.loss < best.loss:
                kept, best, kept_step = now, found, step
        on_step(step, settings.steps, f"rotation loss {best.loss:.3f}")
    return Adaptation(
        kept, kept_step, source, re_estimated, best, len(learned_NCSS), len(judged_NCSS)
    )


@torch.no_grad()
def rotation_accuracy(
    category_module: nn.Module, rotation_head: nn.Module, images_NCSS: Tensor
) -> RotationAccuracy:
    """Measure how well a rotation head tells every turn of every image above a category module.

    Both are in evaluation mode on one device; images are uint8, square, on the CPU.
    """
    loss, right = 0.0, 0
    for part_NCSS in batches(images_NCSS, device_of(category_module)):
        for turns in range(TURNS):
            scores_N4 = rotation_head(category_module(quarter_turned(part_NCSS, turns)))
            turns_N = torch.full((len(part_NCSS),), turns, device=part_NCSS.device)
            loss += float(F.cross_entropy(scores_N4, turns_N, reduction="sum"))
            right += int((scores_N4.argmax(1) == turns_N).sum())
    judged = TURNS * len(images_NCSS)
    return RotationAccuracy(loss=loss / judged, accuracy=100 * right / judged)


def _parts(f: nn.Module, images_NCSS: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    count = len(images_NCSS)
    first = next(layer for layer in f.modules() if isinstance(layer, nn.Conv2d))
    if images_NCSS.ndim != 4 or images_NCSS.shape[1] != first.in_channels:
        raise DataError(
            f"images of {'×'.join(map(str, images_NCSS.shape[1:]))} are no input of a category "
            f"module that takes {first.in_channels} channels; read them with as many"
        )
    if count < FEWEST_IMAGES:
        raise DataError(
            f"a category module cannot be adapted to {count} images; give {FEWEST_IMAGES} or more, "
            "they need no labels"
        )
    judged_NCSS, learned_NCSS = set_apart(images_NCSS, torch.Generator().manual_seed(seed))
    if norms(f) and len(learned_NCSS) < FEWEST:
        raise DataError(
            f"{count} images leave {len(learned_NCSS)} to learn from, and BatchNorm statistics of "
            f"fewer than {FEWEST} would be noise; give {math.ceil(FEWEST / (1 - JUDGING))} or "
            "more, they need no labels"
        )
    return judged_NCSS, learned_NCSS


def _steps(
    f: nn.Sequential, rotation_head: nn.Module, images_NCSS: Tensor, settings: AdaptationSettings
) -> Iterator[int]:
    """Train f in place, and yield the number of steps done."""
    generator = torch.Generator().manual_seed(settings.seed)
    device = device_of(f)
    # Gradients pass through the head to f and stay in neither head nor caller's f.
    head = copy.deepcopy(rotation_head).eval().requires_grad_(False)
    f.requires_grad_(True)
    for layer in norms(f):
        layer.train()  # and nothing else: dropout would draw from the global generator
    optimiser = torch.optim.Adam(f.parameters(), lr=settings.learning_rate)
    for step in range(1, settings.steps + 1):
        chosen_B = torch.randint(len(images_NCSS), (settings.batch_size,), generator=generator)
        turned_BCSS, turns_B = turned(normalise(images_NCSS[chosen_B]), generator)
        scores_B4 = head(f(turned_BCSS.to(device)))
        loss = F.cross_entropy(scores_B4, turns_B.to(device))
        descend(optimiser, loss)
        yield step
