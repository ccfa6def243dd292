"""The fingerprint of a join: its outputs for fixed images, kept with its merge for `net verify`.

A net version never changes what its parent holds; that its outputs stay the same, too, is then a
matter of fact that anyone can check. The images are noise: nobody's, and the same everywhere.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.net.compose import compose

IMAGES = 8
TOLERANCE = 1e-3
"""Between machines: another processor or release of torch adds in another order. Between versions
on one machine there is none: outputs are compared bit by bit."""


def outputs(tree: NetTree, store: BlobStore, category: str, task: str) -> Tensor:
    """Return what a composed net answers to the fixed images, (N, …), float32; see `compose`."""
    net = compose(tree, store, category, task)
    shape_CHW = input_shape(tree.category_modules[category].architecture)
    noise = torch.rand((IMAGES, *shape_CHW), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y: Tensor = net(2 * noise - 1)
    return y


def written(y: Tensor) -> str:
    """Return outputs as a merge's record has them: their mean, image by image."""
    return " ".join(f"{value:.6g}" for value in _means(y))


def agrees(y: Tensor, record: object) -> bool:
    """Say whether outputs are those of a merge's record, within `TOLERANCE`."""
    try:
        recorded = [float(word) for word in str(record).split()]
    except ValueError:
        return False
    means = _means(y)
    return len(means) == len(recorded) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for a, b in zip(means, recorded, strict=True)
    )


def _means(y: Tensor) -> list[float]:
    means: list[float] = y.flatten(1).double().mean(1).tolist()
    return means
