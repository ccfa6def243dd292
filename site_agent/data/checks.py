"""What is doubtful about images that were read: copies, and parts of few grey levels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rootstock.common.image_files.findings import Finding, FindingKind, examples, images
from rootstock.site_agent.data import twins
from rootstock.site_agent.data.images import LabData, PartName
from rootstock.site_agent.data.sides import Loaded, SideImage

_LEAST_LEVELS, _LEAST_SPAN = 4, 32
"""Grey levels that a part has at least, and spans, if nothing went wrong."""


def without_twins(sides: list[list[SideImage]], loaded: Loaded) -> list[list[SideImage]]:
    """Leave out images that are there twice: all but the first of a side, all of them of both."""
    everything = [(number, each) for number, side in enumerate(sides) for each in side]
    copies: list[str] = []
    contradicting: list[str] = []
    groups = twins.same([twins.digest(each.image_CHW) for _, each in everything])
    for group in sorted(
        sorted((everything[index][1].name, everything[index][0]) for index in group)
        for group in groups
    ):
        names = [name for name, _ in group]
        if len({side for _, side in group}) > 1:
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
                f"rest at once: {examples(contradicting)}; take them out of one of the two",
            )
        )
    gone = {*copies, *contradicting}
    return [[each for each in side if each.name not in gone] for side in sides]


def grey_levels(data: LabData) -> dict[PartName, NDArray[np.int64]]:
    """Return which of the 256 values occur in each part's images, ascending."""
    levels: dict[PartName, NDArray[np.int64]] = {}
    for name, part in data.parts().items():
        counts = np.zeros(256, np.int64)
        for image_CHW in part.images_NCHW:
            counts += np.bincount(image_CHW.numpy().ravel(), minlength=256)
        levels[name] = np.flatnonzero(counts)
    return levels


def few_levels(data: LabData) -> Iterable[Finding]:
    """Yield a warning for every part whose images have hardly a grey level."""
    for name, levels in grey_levels(data).items():
        low, high = levels[0], levels[-1]
        if len(levels) < _LEAST_LEVELS or high - low < _LEAST_SPAN:
            count = len(data.parts()[name])
            yield Finding(
                kind=FindingKind.FEW_LEVELS,
                count=count,
                text=f"the {images(count)} of {name} have {len(levels)} grey level(s) in all, from "
                f"{low} to {high} of 255; look at a few, and at what wrote them",
            )


def look_alikes(data: LabData) -> Iterable[Finding]:
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
