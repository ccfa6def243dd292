"""Finds images that are in a lab's data twice, and those that look alike across its parts.

N images, V of them for validation, C channels, H/W height and width, P pixels of a thumbnail.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

_SIDE = 16
"""Pixels of a thumbnail's side."""

_NEAR = 0.01
"""1 − correlation of two thumbnails' grey levels, below which one may be a copy of the other. It is
0.0003 for a photograph that was halved or re-encoded, 0.005 for noise."""

_CLOSER = 0.2
"""A copy is that much nearer than the others are; centred discs are all as near as each other. With
both limits none of VOC's and CIFAR-10's images look alike, of MNIST's ones 1 in 4,000."""

_OTHERS = 5
"""The nearest but four stands for the others, as there may be four copies."""

_ROWS = 512
"""Validation images that are compared at once: some tens of megabytes with 20,000 others."""


def digest(image_CHW: Tensor, mask_HW: Tensor | None = None) -> str:
    """Return what two images have in common if every pixel, and every label of one, is the same."""
    sha = hashlib.blake2b(image_CHW.contiguous().numpy().tobytes(), digest_size=16)
    if mask_HW is not None:
        sha.update(mask_HW.contiguous().numpy().tobytes())
    return sha.hexdigest()


def same(digests: Sequence[str]) -> list[list[int]]:
    """Return the groups of two or more indices that have one digest."""
    groups = defaultdict(list)
    for index, each in enumerate(digests):
        groups[each].append(index)
    return [group for group in groups.values() if len(group) > 1]


def look_alikes(validation_VCHW: Tensor, *others_NCHW: Tensor) -> list[tuple[int, int]]:
    """Return (v, n) for every validation image that hardly differs from the nth of the others."""
    pairs = []
    unit_VP, unit_NP = _thumbnails(validation_VCHW), torch.cat([*map(_thumbnails, others_NCHW)])
    for start in range(0, len(unit_VP), _ROWS):
        correlation_VN = unit_VP[start : start + _ROWS] @ unit_NP.T
        nearest, indices = correlation_VN.topk(min(_OTHERS, len(unit_NP)), dim=1)
        distance_V, usual_V = 1 - nearest[:, 0], 1 - nearest[:, -1]
        alike_V = (distance_V < _NEAR) & (distance_V < _CLOSER * usual_V)
        for v in torch.nonzero(alike_V).flatten().tolist():
            pairs.append((start + v, int(indices[v, 0])))
    return pairs


def _thumbnails(images_NCHW: Tensor) -> Tensor:
    """Return grey thumbnails (N, P), float32, of mean 0 and length 1; flat ones of length 0."""
    parts = [
        F.adaptive_avg_pool2d(part.float().mean(1), _SIDE).flatten(1)
        for part in torch.split(images_NCHW, _ROWS)
    ]
    thumbnails_NP = torch.cat(parts)
    return F.normalize(thumbnails_NP - thumbnails_NP.mean(1, keepdim=True))
