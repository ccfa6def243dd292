"""Training images that a recipe chooses by: nothing learns from them, and none is of validation.

N images.
"""

from __future__ import annotations

import torch

from rootstock.common.errors import DataError
from rootstock.site_agent.data.images import ImageSet


def held_apart(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Part training images from those that the search is judged on, which are balanced.

    Parameters
    ----------
    images
        Of training.
    share
        Of the smaller side's; as many of the other side's.
    seed
        Of the draw.

    Returns
    -------
    What to train on, and what to judge on.

    Raises
    ------
    DataError
        If the share is less than one image.
    """
    count = int(share * min(images.counts()))
    if count == 0:
        category, rest = images.counts()
        raise DataError(
            f"a held share of {share:g} of {category} training images of the category and {rest} "
            "of the rest holds none apart; raise it or add images"
        )
    generator = torch.Generator().manual_seed(seed)
    held: set[int] = set()
    for label in (0.0, 1.0):
        side = torch.nonzero(images.labels_N == label).flatten()
        held |= set(side[torch.randperm(len(side), generator=generator)[:count]].tolist())
    everything = range(len(images))
    return (
        images.subset([index for index in everything if index not in held]),
        images.subset(sorted(held)),
    )
