"""Reads the images that a teacher net was made with, after its folder may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from rootstock.common.errors import NotFoundError
from rootstock.common.image_files.findings import Finding, FindingKind, examples, images
from rootstock.common.nets.spec import ImageForm
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import twins
from rootstock.site_agent.data.images import ImageSet, LabData, PartName
from rootstock.site_agent.data.record import DataRecord, recorded_name
from rootstock.site_agent.data.sides import Loaded, SideImage, Sides, image_set


def read_again(
    config: DataConfig,
    category: str,
    form: ImageForm,
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
    config = config.model_copy(update={"skip_unreadable": True})
    reading = Sides.of(config, category, form, loaded, masks=masks)
    name, labels = reading.category, reading.labels
    there = {recorded_name(key): index for index, (key, label) in enumerate(labels) if label}
    parts: dict[PartName, list[SideImage]] = {"training": [], "holdout": [], "validation": []}
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
        part: image_set(
            [each for each in images if each.label == name],
            [each for each in images if each.label != name],
            masks=masks,
        )
        for part, images in parts.items()
        if images
    }
    _require_remaining(record, sets)
    return LabData(
        sets["training"], sets["holdout"], sets["validation"], mirror=reading.source.mirror
    )


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
