"""Reads the images of a lab's two sides, the category and the rest, from an open dataset.

N images, C channels, S side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.image_files.findings import Finding, FindingKind, examples, printable
from rootstock.common.images import central_part, pixels
from rootstock.common.nets.spec import ImageForm
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import partition
from rootstock.site_agent.data.class_names import find_class, same_but_for_case
from rootstock.site_agent.data.datasets import Dataset, open_dataset
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.data.voc import VocDataset


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


@dataclass(frozen=True)
class SideImage:
    """One image as the net takes it."""

    name: str
    label: str
    image_CHW: Tensor
    mask_HW: Tensor | None


class UnreadableFiles:
    """Takes note of files that cannot be read, or raises for the first."""

    def __init__(self, config: DataConfig) -> None:
        self._skips = config.skip_unreadable
        self._errors: list[UnreadableError] = []

    def __call__(self, error: UnreadableError) -> None:
        """Take note of a file, or raise its error where unreadable ones are not to be skipped."""
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
class Sides:
    """Reads the images of the category and of the rest."""

    source: Dataset
    labels: Sequence[tuple[str, str]]
    form: ImageForm
    category: str
    masked: VocDataset | None
    """The source, if masks are wanted."""
    unreadable: UnreadableFiles
    selected: tuple[list[int], list[int]]
    """Indices of the category's images and of the rest's that are this lab's, by the partition."""

    @classmethod
    def of(
        cls,
        config: DataConfig,
        category: str,
        form: ImageForm,
        loaded: Loaded,
        *,
        masks: bool,
    ) -> Self:
        """Open the dataset and choose its images; `loaded` takes in which, and of what classes."""
        source = open_dataset(config)
        masked = masks_of(source, config) if masks else None
        try:
            name, rest = choose_classes(source, config, category, loaded)
        except DataError:
            # A class may be missing for what is told here: its folder is a link that was left out.
            loaded.findings += source.findings()
            raise
        unreadable = UnreadableFiles(config)
        labels = source.labels(frozenset((name, *rest)), unreadable)
        selected = partition.select(labels, config, name, rest)
        loaded.chosen = [labels[index][0] for indices in selected for index in indices]
        return cls(source, labels, form, name, masked, unreadable, selected)

    def read(self, indices: Sequence[int]) -> list[SideImage]:
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
            mask_HW = None if self.masked is None else _pixel_classes(mask, self.form)
            side.append(SideImage(key, label, pixels(picture, self.form), mask_HW))
        return side


def image_set(category: Sequence[SideImage], rest: Sequence[SideImage], *, masks: bool) -> ImageSet:
    """Put both sides together, the category first."""
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


def masks_of(source: Dataset, config: DataConfig) -> VocDataset:
    """Return the dataset as one that has masks; DataError if it has none."""
    if not isinstance(source, VocDataset):
        raise DataError(
            f"data.kind = '{config.kind}' has no masks, which segmentation needs; give data of "
            "kind 'voc'"
        )
    return source


def choose_classes(
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


def _pixel_classes(mask: Image.Image | None, form: ImageForm) -> Tensor:
    """Cut and resize a square mask to uint8 of S×S, with no new values; None has no label."""
    _, height, width = form.shape
    if mask is None:
        return torch.full((height, width), NO_LABEL, dtype=torch.uint8)
    mask = central_part(mask, form.preprocessing.crop)
    return torch.from_numpy(np.array(mask.resize((width, height), Image.Resampling.NEAREST)))
