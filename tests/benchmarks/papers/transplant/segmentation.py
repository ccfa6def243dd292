"""Experiment 3's data and teachers: PASCAL VOC's mammals with masks, small FCNs.

A quarter of the training images, of all categories, belong to no lab: the common start learns to
tell animals from the rest on them. Test images are the official val part.

Shapes: N images, S side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.augmentation import moved
from rootstock.common.distillation.problem import pixel_labels
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data import crops as squares
from rootstock.site_agent.data.voc import VOC_CLASSES
from rootstock.site_agent.scoring import error_percent
from tests.benchmarks.harness import cache
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.harness.training import adamw, epochs
from tests.benchmarks.papers.shared import voc
from tests.benchmarks.papers.transplant import teachers

SIDE = 32
CONTEXT = 0.2
"""Margin around an animal's box: about 70% of the pixels are background."""
FORMAT = 1
_MIN_PIXELS = 100
_BATCH = 32
START_EPOCHS, TEACHER_EPOCHS, LEARNING_RATE = 20, 20, 2e-3
TASK = TaskSpec(name="segmentation", kind="binary-segmentation")
ARCHITECTURE = ArchitectureSpec(
    name="small-vgg", split="pool1", settings={"input_size": SIDE, "width": 16}
)


@dataclass(frozen=True)
class Masked:
    """Images and, by pixel, 1 the category, 0 the rest, NaN no label."""

    images_NCSS: Tensor
    """uint8."""
    labels_NSS: Tensor

    def __len__(self) -> int:
        return len(self.images_NCSS)

    def at(self, indices: Tensor) -> Masked:
        return Masked(self.images_NCSS[indices], self.labels_NSS[indices])


@dataclass(frozen=True)
class MaskedSplit:
    """One lab's images, and the public ones of its category."""

    public: Masked
    training: Masked
    held: Masked
    test: Masked


def load(folders: Folders) -> dict[str, MaskedSplit]:
    """Read every category's images."""
    name = f"voc-masks-{SIDE}-{FORMAT}"
    tensors = cache.kept(folders, name, lambda: _read(folders.root / "voc2012-animals"))
    return {category: _split(tensors, category) for category in voc.ANIMALS}


def _split(tensors: dict[str, Tensor], category: str) -> MaskedSplit:
    train, test = (
        Masked(
            tensors[f"{category}/{part}/images"], pixel_labels(tensors[f"{category}/{part}/masks"])
        )
        for part in ("train", "val")
    )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(len(category)))
    public, held = len(order) // 4, len(order) // 10
    return MaskedSplit(
        train.at(order[:public]),
        train.at(order[public + held :]),
        train.at(order[public : public + held]),
        test,
    )


def _read(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in ("train", "val"):
        images: dict[str, list[np.ndarray]] = {name: [] for name in voc.ANIMALS}
        masks: dict[str, list[np.ndarray]] = {name: [] for name in voc.ANIMALS}
        for _, picture, mask_HW in voc.pictures(folder, part):
            present = [
                animal
                for animal in voc.ANIMALS
                if (mask_HW == VOC_CLASSES.index(animal)).sum() >= _MIN_PIXELS
            ]
            if len(present) == 1:
                value = VOC_CLASSES.index(present[0])
                image, mask = _cropped(picture.convert("RGB"), mask_HW, value)
                images[present[0]].append(image)
                masks[present[0]].append(mask)
        for animal in voc.ANIMALS:
            stacked = torch.from_numpy(np.stack(images[animal])).permute(0, 3, 1, 2)
            found[f"{animal}/{part}/images"] = stacked.contiguous()
            found[f"{animal}/{part}/masks"] = torch.from_numpy(np.stack(masks[animal]))
    return found


def _cropped(
    picture: Image.Image, mask_HW: np.ndarray, value: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and mask of the square around the category; beyond the picture: no label."""
    box = squares.bounding_box(mask_HW == value)
    own_HW = np.where(mask_HW == NO_LABEL, NO_LABEL, mask_HW == value).astype(np.uint8)
    mask = squares.square_around(Image.fromarray(own_HW), box, CONTEXT, NO_LABEL)
    image = squares.square_around(picture, box, CONTEXT)
    return (
        np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)),
        np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST)),
    )


def start(splits: dict[str, MaskedSplit], *, seed: int, folders: Folders) -> nn.Sequential:
    """Return the common start f, g as one sequence of (f, g)."""
    net = _net(seed)
    public = Masked(
        torch.cat([split.public.images_NCSS for split in splits.values()]),
        torch.cat([split.public.labels_NSS for split in splits.values()]),
    )
    config = _config("", START_EPOCHS, seed)
    cached(folders, config, {"net/": net}, lambda: _train(net, public, START_EPOCHS, seed))
    return net


def trained(
    splits: dict[str, MaskedSplit], category: str, *, seed: int, folders: Folders
) -> tuple[nn.Sequential, nn.Sequential]:
    """Return f and g_T of a category's teacher, from the cache if it is there."""
    net = start(splits, seed=seed, folders=folders)
    training = splits[category].training
    config = _config(category, TEACHER_EPOCHS, seed)
    cached(folders, config, {"net/": net}, lambda: _train(net, training, TEACHER_EPOCHS, seed + 1))
    category_module, task_module = net
    assert isinstance(category_module, nn.Sequential)  # as `_net` builds it
    assert isinstance(task_module, nn.Sequential)
    return category_module, task_module


def pixel_accuracy(y_NSS: Tensor, labels_NSS: Tensor) -> float:
    """Return the share of labelled pixels on the right side of threshold 0, in percent."""
    return 100 - error_percent(y_NSS, labels_NSS)


def _net(seed: int) -> nn.Sequential:
    category_module, task_modules = initial_modules(ARCHITECTURE, [TASK], seed)
    return nn.Sequential(category_module, task_modules[TASK.name])


def _config(category: str, epochs: int, seed: int) -> teachers.TeacherConfig:
    return teachers.TeacherConfig(
        data=f"voc-masks-{SIDE}-{FORMAT}",
        architecture=ARCHITECTURE,
        category=category,
        start_epochs=START_EPOCHS,
        training=TrainingConfig(epochs=epochs, learning_rate=LEARNING_RATE, seed=seed),
        seed=seed,
    )


def _train(net: nn.Sequential, images: Masked, passes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = epochs(len(images), _BATCH, generator)

    def loss(_: int) -> Tensor:
        batch = images.at(next(order))
        x_NCSS, labels_NSS = changed(normalise(batch.images_NCSS), batch.labels_NSS, generator)
        labelled = ~labels_NSS.isnan()
        y_NSS = net(x_NCSS).squeeze(1)
        return F.binary_cross_entropy_with_logits(y_NSS[labelled], labels_NSS[labelled])

    steps = passes * (len(images) // _BATCH)
    adamw([net], loss, steps=steps, rate=LEARNING_RATE, weight_decay=1e-4, seed=seed)


def changed(
    x_NCSS: Tensor, labels_NSS: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Crop, mirror and recolour images, their labels with them."""
    count = len(x_NCSS)
    scale = (0.5 + 0.5 * torch.rand(count, generator=generator)).sqrt()
    place = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None]
    sign = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * sign, scale, place
    grid = F.affine_grid(theta, [count, 1, *x_NCSS.shape[2:]], align_corners=False)
    x_NCSS, labels_NSS = moved(x_NCSS, labels_NSS, grid)
    contrast = 0.75 + 0.5 * torch.rand(count, 3, 1, 1, generator=generator)
    return x_NCSS * contrast, labels_NSS
