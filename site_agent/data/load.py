"""Loads a lab's private images as the configuration describes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import printable
from rootstock.common.nets.spec import ImageForm
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import partition
from rootstock.site_agent.data.checks import few_levels, look_alikes, without_twins
from rootstock.site_agent.data.datasets import Dataset
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.data.sides import Loaded, SideImage, Sides, image_set
from rootstock.site_agent.data.voc import VocDataset


def load(
    config: DataConfig,
    category: str,
    form: ImageForm,
    *,
    batch_size: int,
    warn: Callable[[str], None],
    masks: bool = False,
) -> LabData:
    """Read a lab's images as `read` does; `warn` is called with what is doubtful about them."""
    loaded = Loaded()
    data = read(config, category, form, loaded, batch_size=batch_size, masks=masks)
    for finding in loaded.doubts():
        warn(finding.text)
    return data


def read(
    config: DataConfig,
    category: str,
    form: ImageForm,
    loaded: Loaded,
    *,
    batch_size: int,
    masks: bool = False,
) -> LabData:
    """Read a lab's images and split them into training, holdout and validation.

    `form` is what the plan's architecture takes, of 1 or 3 channels; training must have at
    least `batch_size` images. `loaded` takes in what there is to say, also before an error.
    `masks`: the labels of pixels are wanted as well.

    Raises DataError if the dataset is missing, lacks a class or the masks that are wanted, or has
    too few images or an unreadable one; names the remedy.
    """
    reading = Sides.of(config, category, form, loaded, masks=masks)
    source, name = reading.source, reading.category
    loaded.findings += source.findings()
    sides = [reading.read(indices) for indices in reading.selected]
    loaded.findings += reading.unreadable.findings()
    if source.reader is not None:
        loaded.findings += source.reader.findings()
        source.reader.require_contrast()
        sides = without_twins(sides, loaded)
    category_side, rest_side = sides
    _require_sides(config, name, source, category_side, rest_side, loaded)
    loaded.classes = {each.name: each.label for side in sides for each in side}
    parts = partition.split(
        range(len(category_side)),
        range(len(category_side), len(category_side) + len(rest_side)),
        config,
    )
    everything = image_set(category_side, rest_side, masks=masks)
    training, holdout, validation = (everything.subset(part) for part in parts)
    _require_training(training, batch_size)
    if masks:
        _require_pixels(config, name, (training, holdout, validation))
    data = LabData(training, holdout, validation, mirror=source.mirror)
    if source.reader is not None:
        loaded.findings += few_levels(data)
        loaded.findings += look_alikes(data)
    return data


def _require_sides(
    config: DataConfig,
    name: str,
    source: Dataset,
    category: Sequence[SideImage],
    rest: Sequence[SideImage],
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
