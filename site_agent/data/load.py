"""Loads a lab's private images as the configuration describes them.

N images, C channels, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.images import UnreadableError, pixels
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import partition
from rootstock.site_agent.data.datasets import Dataset, open_dataset, slug
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.data.voc import VocDataset


def load(
    config: DataConfig,
    category: str,
    input_shape: tuple[int, int, int],
    *,
    batch_size: int,
    warn: Callable[[str], None],
    masks: bool = False,
) -> LabData:
    """Read a lab's images and split them into training, holdout and validation.

    `input_shape` is (C, H, W) that the plan's architecture takes, C 1 or 3; training must have at
    least `batch_size` images. `warn` is called for every image that is left out because it cannot
    be read. `masks`: the labels of pixels are wanted as well.

    Raises DataError if the dataset is missing, lacks a class or the masks that are wanted, or has
    too few images or an unreadable one; names the remedy.
    """
    source = open_dataset(config)
    masked = _masked(source, config) if masks else None
    name, rest = _classes(source, config, category)

    def unreadable(error: UnreadableError) -> None:
        if not config.skip_unreadable:
            raise error
        warn(f"left out: {error}")

    labels = source.labels(frozenset((name, *rest)), unreadable)
    chosen = partition.select(labels, config, name, rest)
    images: list[Tensor] = []
    maps: list[Tensor] = []
    keys: list[str] = []
    sides: list[list[int]] = []
    for indices in chosen:
        side = []
        for index in indices:
            mask = None
            try:
                picture = source.image(index)
                if masked is not None and labels[index][1] == name:
                    mask = masked.mask(index, name)
            except UnreadableError as error:
                unreadable(error)
                continue
            side.append(len(images))
            images.append(pixels(picture, input_shape))
            if masks:
                maps.append(_pixel_classes(mask, input_shape))
            keys.append(labels[index][0])
        sides.append(side)
    positive, negative = sides
    _require_sides(config, name, len(positive), len(negative))
    parts = partition.split(positive, negative, config)
    labels_N = torch.zeros(len(images))
    labels_N[positive] = 1.0
    everything = ImageSet(
        torch.stack(images), labels_N, tuple(keys), torch.stack(maps) if masks else None
    )
    training, holdout, validation = (everything.subset(part) for part in parts)
    _require_training(training, batch_size)
    if masks:
        _require_pixels(config, name, (training, holdout, validation))
    return LabData(training, holdout, validation, mirror=source.mirror)


def _masked(source: Dataset, config: DataConfig) -> VocDataset:
    if not isinstance(source, VocDataset):
        raise DataError(
            f"data.kind = '{config.kind}' has no masks, which segmentation needs; give data of "
            "kind 'voc'"
        )
    return source


def _classes(source: Dataset, config: DataConfig, category: str) -> tuple[str, tuple[str, ...]]:
    """Return the dataset's names of the category and of the rest."""
    known = {slug(name): name for name in source.classes} | {n: n for n in source.classes}

    def find(wanted: str, key: str) -> str:
        found = known.get(wanted) or known.get(slug(wanted))
        if found is None:
            raise DataError(
                f"data.{key}: the dataset has no class '{wanted}'; it has "
                + ", ".join(source.classes)
            )
        return found

    name = find(config.class_name or category, "class_name")
    if config.rest is None:
        return name, tuple(other for other in source.classes if other != name)
    # One list may serve all labs of a federation, so it may name the category itself.
    return name, tuple(find(other, "rest") for other in config.rest if find(other, "rest") != name)


def _pixel_classes(mask: Image.Image | None, input_shape: tuple[int, int, int]) -> Tensor:
    """Resize a square mask to uint8 of S×S, with no new values; None has no label."""
    _, height, width = input_shape
    if mask is None:
        return torch.full((height, width), NO_LABEL, dtype=torch.uint8)
    return torch.from_numpy(np.array(mask.resize((width, height), Image.Resampling.NEAREST)))


def _require_sides(config: DataConfig, name: str, positive: int, negative: int) -> None:
    where = config.path if config.path is not None else config.kind
    if positive + negative == 0:
        raise DataError(
            f"{where}: holds no image of '{name}' nor of the rest for this lab; check data.path, "
            "data.class_name, data.rest and data.part"
        )
    for count, what, key in (
        (positive, f"of the category '{name}'", "class_name"),
        (negative, "of the rest, to tell the category from", "rest, data.part or data.reserve"),
    ):
        if count == 0:
            raise DataError(f"{where}: holds no image {what}; add images or mend data.{key}")
        if count < 3:  # one each for training, holdout and validation
            raise DataError(
                f"{where}: holds {count} image(s) {what}; at least 3 are needed, one each for "
                "training, holdout and validation; add images"
            )


def _require_training(training: ImageSet, batch_size: int) -> None:
    if 0 in training.counts():
        raise DataError(
            "validation and holdout leave no training image of one side; add images or lower "
            "data.validation_fraction or data.holdout_fraction"
        )
    if len(training) < batch_size:
        raise DataError(
            f"{len(training)} training images are fewer than one batch of {batch_size}; add images "
            "or lower training.batch_size"
        )


def _require_pixels(config: DataConfig, name: str, parts: Sequence[ImageSet]) -> None:
    for part in parts:
        assert part.masks_NHW is not None  # noqa: S101  # called where masks are wanted
        for value, what in ((1, f"of '{name}'"), (0, "of the rest")):
            if not bool((part.masks_NHW == value).any()):
                raise DataError(
                    f"{config.path}: the masks of {len(part)} images label no pixel {what}; give "
                    "masks that do, or add images"
                )
