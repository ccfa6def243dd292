"""Loads a lab's private images as the configuration describes them.

N images, C channels, S side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError, NotFoundError
from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.image_files.findings import Finding, FindingKind, examples, images, printable
from rootstock.common.images import pixels
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import partition, twins
from rootstock.site_agent.data.class_names import find_class, same_but_for_case
from rootstock.site_agent.data.datasets import Dataset, open_dataset
from rootstock.site_agent.data.images import ImageSet, LabData, PartName
from rootstock.site_agent.data.record import DataRecord, recorded_name
from rootstock.site_agent.data.voc import VocDataset

_LEAST_LEVELS = 4
"""Grey levels that a part has at least if nothing went wrong."""


@dataclass
class Loaded:
    """What was read, and what there is to say of it: also of what ended in an error."""

    category: str = ""
    """The dataset's name of the category."""
    classes: dict[str, str] = field(default_factory=dict)
    """The dataset's class by image name, of the images that were read."""
    chosen: list[str] = field(default_factory=list)
    """Names of all images that were to be read, by the partition."""
    findings: list[Finding] = field(default_factory=list)

    def doubts(self) -> list[Finding]:
        """Return the findings that the operator should look at."""
        return [finding for finding in self.findings if finding.doubtful]


def load(
    config: DataConfig,
    category: str,
    input_shape: tuple[int, int, int],
    *,
    batch_size: int,
    warn: Callable[[str], None],
    masks: bool = False,
) -> LabData:
    """Read a lab's images as `read` does; `warn` is called with what is doubtful about them."""
    loaded = Loaded()
    data = read(config, category, input_shape, loaded, batch_size=batch_size, masks=masks)
    for finding in loaded.doubts():
        warn(finding.text)
    return data


def read(
    config: DataConfig,
    category: str,
    input_shape: tuple[int, int, int],
    loaded: Loaded,
    *,
    batch_size: int,
    masks: bool = False,
) -> LabData:
    """Read a lab's images and split them into training, holdout and validation.

    `input_shape` is (C, H, W) that the plan's architecture takes, C 1 or 3; training must have at
    least `batch_size` images. `loaded` takes in what there is to say, also before an error.
    `masks`: the labels of pixels are wanted as well.

    Raises DataError if the dataset is missing, lacks a class or the masks that are wanted, or has
    too few images or an unreadable one; names the remedy.
    """
    source = open_dataset(config)
    masked = _masked(source, config) if masks else None
    name, rest = _classes(source, config, category, loaded)
    unreadable = _Unreadable(config)
    labels = source.labels(frozenset((name, *rest)), unreadable)
    loaded.findings += source.findings()
    reading = _Sides(source, labels, input_shape, name, masked, unreadable)
    selected = partition.select(labels, config, name, rest)
    loaded.chosen = [labels[index][0] for indices in selected for index in indices]
    sides = [reading.read(indices) for indices in selected]
    loaded.findings += unreadable.findings()
    if source.reader is not None:
        loaded.findings += source.reader.findings()
        source.reader.require_contrast()
        sides = _without_twins(sides, loaded)
    category_side, rest_side = sides
    _require_sides(config, name, source, category_side, rest_side, loaded)
    loaded.classes = {each.name: each.label for side in sides for each in side}
    parts = partition.split(
        range(len(category_side)),
        range(len(category_side), len(category_side) + len(rest_side)),
        config,
    )
    everything = _image_set(category_side, rest_side, masks=masks)
    training, holdout, validation = (everything.subset(part) for part in parts)
    _require_training(training, batch_size)
    if masks:
        _require_pixels(config, name, (training, holdout, validation))
    data = LabData(training, holdout, validation, mirror=source.mirror)
    if source.reader is not None:
        loaded.findings += _few_levels(data)
        loaded.findings += _look_alikes(data)
    return data


def read_again(
    config: DataConfig,
    category: str,
    input_shape: tuple[int, int, int],
    loaded: Loaded,
    record: DataRecord,
    *,
    masks: bool = False,
) -> LabData:
    """Read the images that a teacher net was made with, each for the part that it served then.

    Of images that are new nothing is used; those that are gone or changed are left out. `loaded`
    takes in how many there are of each. NotFoundError if too few of the validation images remain,
    or none of a side of a part; else DataError as `read` raises it.
    """
    source = open_dataset(config)
    masked = _masked(source, config) if masks else None
    name, rest = _classes(source, config, category, loaded)
    unreadable = _Unreadable(config.model_copy(update={"skip_unreadable": True}))
    labels = source.labels(frozenset((name, *rest)), unreadable)
    selected = partition.select(labels, config, name, rest)
    loaded.chosen = [labels[index][0] for indices in selected for index in indices]
    there = {recorded_name(key): index for index, (key, label) in enumerate(labels) if label}
    reading = _Sides(source, labels, input_shape, name, masked, unreadable)
    parts: dict[PartName, list[_Image]] = {"training": [], "holdout": [], "validation": []}
    gone, changed = [], []
    for image in record.images:
        found = reading.read([there[image.name]]) if image.name in there else []
        if not found:
            gone.append(image.name)
        elif twins.digest(found[0].image_CHW, found[0].mask_HW) != image.digest:
            changed.append(image.name)
        else:
            parts[image.part] += found
    known = {*record.left_out, *(image.name for image in record.images)}
    new = [key for key in map(recorded_name, loaded.chosen) if key not in known]
    loaded.findings += _changes(new, gone, changed)
    loaded.classes = {each.name: each.label for part in parts.values() for each in part}
    sets = {
        part: _image_set(
            [each for each in images if each.label == name],
            [each for each in images if each.label != name],
            masks=masks,
        )
        for part, images in parts.items()
        if images
    }
    _require_remaining(record, sets)
    return LabData(sets["training"], sets["holdout"], sets["validation"], mirror=source.mirror)


def _changes(new: Sequence[str], gone: Sequence[str], changed: Sequence[str]) -> Iterable[Finding]:
    """Yield what is other than it was when the teacher net was trained, and what to do."""
    if new or gone or changed:
        counts = [
            f"{images(len(names))} {what} ({examples(names)})"
            for names, what in ((new, "new"), (gone, "gone"), (changed, "changed"))
            if names
        ]
        yield Finding(
            kind=FindingKind.CHANGED_SINCE,
            count=len(new) + len(gone) + len(changed),
            text=f"since the teacher net was trained, {', '.join(counts)}; the lab measures on the "
            "images of then that remain. To train on what is there now, set new_version = true "
            "in site.toml (or, if it is set, another training.seed)",
        )


def _require_remaining(record: DataRecord, sets: Mapping[PartName, ImageSet]) -> None:
    for part in get_args(PartName):
        before = sum(image.part == part for image in record.images)
        counts = sets[part].counts() if part in sets else (0, 0)
        if 0 in counts or (part == "validation" and sum(counts) < before / 2):
            raise NotFoundError(
                f"of the {before} {part} images that the teacher net was made with, {counts[0]} of "
                f"the category and {counts[1]} of the rest remain, too few to measure on; put them "
                "back, or set new_version = true in site.toml to train anew"
            )


@dataclass(frozen=True)
class _Image:
    """One image as the net takes it."""

    name: str
    label: str
    image_CHW: Tensor
    mask_HW: Tensor | None


class _Unreadable:
    """Takes note of files that cannot be read, or raises for the first."""

    def __init__(self, config: DataConfig) -> None:
        self._skips = config.skip_unreadable
        self._errors: list[UnreadableError] = []

    def __call__(self, error: UnreadableError) -> None:
        if not self._skips:
            raise error
        self._errors.append(error)

    def findings(self) -> Iterable[Finding]:
        """Yield what was left out, if anything was."""
        if self._errors:
            # The setting that every error names is set already.
            texts = [
                str(error).removesuffix(", or set data.skip_unreadable = true")
                for error in self._errors
            ]
            count = len(texts)
            yield Finding(
                kind=FindingKind.UNREADABLE,
                count=count,
                text=f"{count} left out, as data.skip_unreadable says: {examples(texts)}",
            )


@dataclass(frozen=True)
class _Sides:
    """Reads the images of the category and of the rest."""

    source: Dataset
    labels: Sequence[tuple[str, str]]
    input_shape: tuple[int, int, int]
    category: str
    masked: VocDataset | None
    """The source, if masks are wanted."""
    unreadable: _Unreadable

    def read(self, indices: Sequence[int]) -> list[_Image]:
        """Read one side's images, in that order."""
        side = []
        for index in indices:
            key, label = self.labels[index]
            mask = None
            try:
                picture = self.source.image(index)
                if self.masked is not None and label == self.category:
                    mask = self.masked.mask(index, self.category)
            except UnreadableError as error:
                self.unreadable(error)
                continue
            mask_HW = None if self.masked is None else _pixel_classes(mask, self.input_shape)
            side.append(_Image(key, label, pixels(picture, self.input_shape), mask_HW))
        return side


def _image_set(category: Sequence[_Image], rest: Sequence[_Image], *, masks: bool) -> ImageSet:
    everything = [*category, *rest]
    labels_N = torch.zeros(len(everything))
    labels_N[: len(category)] = 1.0
    masks_N = [each.mask_HW for each in everything if each.mask_HW is not None]
    return ImageSet(
        torch.stack([each.image_CHW for each in everything]),
        labels_N,
        tuple(each.name for each in everything),
        torch.stack(masks_N) if masks else None,
    )


def _without_twins(sides: list[list[_Image]], loaded: Loaded) -> list[list[_Image]]:
    """Leave out images that are there twice: all but the first of a side, all of them of both."""
    everything = [(number, each) for number, side in enumerate(sides) for each in side]
    copies: list[str] = []
    contradicting: list[str] = []
    for group in twins.same([twins.digest(each.image_CHW) for _, each in everything]):
        names = sorted(everything[index][1].name for index in group)
        if len({everything[index][0] for index in group}) > 1:
            contradicting += names
        else:
            copies += names[1:]
    if copies:
        loaded.findings.append(
            Finding(
                kind=FindingKind.TWINS,
                count=len(copies),
                text=f"{images(len(copies))} left out, being the same as another, pixel by pixel: "
                f"{examples(copies)}",
            )
        )
    if contradicting:
        loaded.findings.append(
            Finding(
                kind=FindingKind.CONTRADICTING_TWINS,
                count=len(contradicting),
                text=f"{images(len(contradicting))} left out, being in the category and in the "
                f"rest at once: {examples(contradicting)}",
            )
        )
    gone = {*copies, *contradicting}
    return [[each for each in side if each.name not in gone] for side in sides]


def grey_levels(data: LabData) -> dict[PartName, int]:
    """Return how many of the 256 values occur in each part's images."""
    levels: dict[PartName, int] = {}
    for name, part in data.parts().items():
        counts = np.zeros(256, np.int64)
        for image_CHW in part.images_NCHW:
            counts += np.bincount(image_CHW.numpy().ravel(), minlength=256)
        levels[name] = int((counts > 0).sum())
    return levels


def _few_levels(data: LabData) -> Iterable[Finding]:
    for name, levels in grey_levels(data).items():
        if levels < _LEAST_LEVELS:
            count = len(data.parts()[name])
            yield Finding(
                kind=FindingKind.FEW_LEVELS,
                count=count,
                text=f"the {images(count)} of {name} have {levels} grey level(s) in all; look "
                "at a few, and at what wrote them",
            )


def _look_alikes(data: LabData) -> Iterable[Finding]:
    """Yield a warning where validation images hardly differ from others: errors are too low."""
    names = [*data.training.keys, *data.holdout.keys]
    pairs = twins.look_alikes(
        data.validation.images_NCHW, data.training.images_NCHW, data.holdout.images_NCHW
    )
    if pairs:
        shown = [f"{data.validation.keys[v]} like {names[n]}" for v, n in pairs]
        yield Finding(
            kind=FindingKind.LOOK_ALIKES,
            count=len(pairs),
            text=f"{len(pairs)} of {len(data.validation)} validation images look like one that is "
            f"trained on or chosen by, so errors on them are too low: {examples(shown)}",
        )


def _masked(source: Dataset, config: DataConfig) -> VocDataset:
    if not isinstance(source, VocDataset):
        raise DataError(
            f"data.kind = '{config.kind}' has no masks, which segmentation needs; give data of "
            "kind 'voc'"
        )
    return source


def _classes(
    source: Dataset, config: DataConfig, category: str, loaded: Loaded
) -> tuple[str, tuple[str, ...]]:
    """Return the dataset's names of the category and of the rest."""
    name = find_class(config.class_name or category, source.classes, "data.class_name")
    loaded.category = name
    if config.rest is None:
        rest = tuple(other for other in source.classes if other != name)
    else:
        # One list may serve all labs of a federation, so it may name the category itself.
        found = [find_class(other, source.classes, "data.rest") for other in config.rest]
        rest = tuple(dict.fromkeys(other for other in found if other != name))
    for other in same_but_for_case(name, rest):
        loaded.findings.append(
            Finding(
                kind=FindingKind.SIMILAR_CLASS,
                count=1,
                text=f"class '{printable(other)}' is in the rest and its name differs from the "
                f"category's, '{printable(name)}', in case or accents only",
                subject=other,
            )
        )
    return name, rest


def _pixel_classes(mask: Image.Image | None, input_shape: tuple[int, int, int]) -> Tensor:
    """Resize a square mask to uint8 of S×S, with no new values; None has no label."""
    _, height, width = input_shape
    if mask is None:
        return torch.full((height, width), NO_LABEL, dtype=torch.uint8)
    return torch.from_numpy(np.array(mask.resize((width, height), Image.Resampling.NEAREST)))


def _require_sides(
    config: DataConfig,
    name: str,
    source: Dataset,
    category: Sequence[_Image],
    rest: Sequence[_Image],
    loaded: Loaded,
) -> None:
    where = printable(config.path if config.path is not None else config.kind)
    reasons = "".join(f"; {finding.text}" for finding in loaded.doubts())
    if isinstance(source, VocDataset):
        reasons += f"; {source.values(name)}"
    if len(category) + len(rest) == 0:
        raise DataError(
            f"{where}: holds no image of '{printable(name)}' nor of the rest for this lab; check "
            f"data.path, data.class_name, data.rest and data.part{reasons}"
        )
    for count, what, key in (
        (len(category), f"of the category '{printable(name)}'", "class_name"),
        (len(rest), "of the rest, to tell the category from", "rest, data.part or data.reserve"),
    ):
        if count == 0:
            raise DataError(
                f"{where}: holds no image {what}; "
                + (reasons.removeprefix("; ") or f"add images or mend data.{key}")
            )
        if count < 3:  # one each for training, holdout and validation
            raise DataError(
                f"{where}: holds {count} image(s) {what}; at least 3 are needed, one each for "
                f"training, holdout and validation; add images{reasons}"
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
