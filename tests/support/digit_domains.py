"""A lab's net on real digits with a frozen rotation head, and a domain made of the digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from rootstock.common.compatible.batchnorm import re_estimate
from rootstock.common.compatible.rotation import TURNS, RotationSettings, learn_rotation_head
from rootstock.common.images import batches, normalise
from rootstock.common.nets.architectures import build_head, image_form, initial_modules, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.site_agent import scoring
from rootstock.site_agent.config import CompatibleConfig, TrainingConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.recipes.compatible import CompatibleRecipe, FrozenHeads
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun
from tests.support import digits_lab

SPEC = ArchitectureSpec(
    name="small-resnet", settings={"input_size": 32, "width": 8, "blocks": 1}, split="block2_1"
)
TASK = digits_lab.TASK.name
DIGIT = 2
TRAINING = TrainingConfig(
    recipe="compatible", epochs=8, compatible=CompatibleConfig(batch_norm="re-estimated")
)


class Trained(NamedTuple):
    """A teacher net that was trained below the rotation head, too."""

    net: Teacher
    rotation_head: nn.Sequential


@cache
def data() -> LabData:
    digits = digits_lab.digits(DIGIT)
    return load(digits, str(DIGIT), image_form(SPEC), batch_size=32, warn=digits_lab.fail)


def start(seed: int = 0) -> Teacher:
    return Teacher(*initial_modules(SPEC, [digits_lab.TASK], seed))


@cache
def trained() -> Trained:
    images = data().training.images_NCHW
    net = start()
    head = initialise(build_head(SPEC, TURNS), 0)
    re_estimate(net.category_module, batches(images, digits_lab.CPU))
    learn_rotation_head(head, net.category_module, normalise(images), RotationSettings(steps=200))
    recipe = CompatibleRecipe(TRAINING, digits_lab.CPU, FrozenHeads({}, head))
    with TemporaryDirectory() as folder:
        net = recipe.train(net, TrainingRun(data(), Path(folder)))
    return Trained(net, head)


def noisy(images_NCSS: Tensor) -> Tensor:
    """Return the images as a poor camera would take them."""
    noise = 60 * torch.randn(images_NCSS.shape, generator=torch.Generator().manual_seed(0))
    return (images_NCSS + noise).clamp(0, 255).byte()


def target_test() -> ImageSet:
    """Return labelled images of the noisy domain that no net has seen."""
    parts = (data().validation, data().holdout)
    return ImageSet(
        noisy(torch.cat([part.images_NCHW for part in parts])),
        torch.cat([part.labels_N for part in parts]),
        tuple(key for part in parts for key in part.keys),
    )


def error(f: nn.Module, g: nn.Module, images: ImageSet) -> float:
    y_N = scoring.logits(f, {TASK: g}, images)[TASK]
    return scoring.error_percent(y_N, images.labels_N)


def save(images_NCSS: Tensor, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image_CSS in enumerate(images_NCSS):
        array = image_CSS.permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(folder / f"{index:03}.png")
