"""Which images are this lab's, and which of them serve what.

All of it follows from a stable hash of an image's name, so labs need not talk to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rootstock.site_agent.config import DataConfig


def share(key: str, purpose: str) -> float:
    """Return a number in [0, 1) that is fixed for an image and a purpose, uniform over images."""
    # A file's name need not be UTF-8.
    name = f"{purpose}\0{key}".encode(errors="surrogateescape")
    digest = hashlib.sha256(name).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def select(
    labels: Sequence[tuple[str, str]], config: DataConfig, category: str, rest: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Pick this lab's images out of a dataset, by `part`, `parts`, `reserve` and `max_images`.

    `labels` are (name, class) of every image in the dataset. Returns the indices of the category's
    images and of the rest's, each in hash order. With `reserve` above zero the category takes
    unreserved images only and the rest takes reserved ones only. With one `reserve`, one `parts`
    and a `part` of its own, no lab then has an image that another lab has.
    """
    others = frozenset(rest)
    positive, negative = [], []
    for index, (key, name) in enumerate(labels):
        reserved = share(key, "reserve") < config.reserve
        mine = int(share(key, "part") * config.parts) + 1 == config.part
        if name == category and not reserved:
            positive.append(index)
        elif name in others and mine and (reserved or config.reserve == 0):
            negative.append(index)

    def in_order(indices: list[int]) -> list[int]:
        return sorted(indices, key=lambda index: (share(labels[index][0], "order"), index))

    return in_order(positive)[: config.max_images], in_order(negative)[: config.max_images]


def split(
    positive: Sequence[int], negative: Sequence[int], config: DataConfig
) -> tuple[list[int], list[int], list[int]]:
    """Split a lab's images into training, holdout and validation, given in hash order.

    Validation and holdout have equally many images of the category and of the rest, so that
    plain error on them is balanced; what the larger side has left over goes to training. Each part
    is empty only if a side is too small.
    """
    smaller = min(len(positive), len(negative))
    validation = max(1, round(config.validation_fraction * smaller)) if smaller else 0
    holdout = max(1, round(config.holdout_fraction * (smaller - validation))) if smaller else 0
    seen = validation + holdout
    return (
        [*positive[seen:], *negative[seen:]],
        [*positive[validation:seen], *negative[validation:seen]],
        [*positive[:validation], *negative[:validation]],
    )
