"""Rotation prediction: a task that every lab has, whatever its images show (paper 004, 3.1).

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import DataError

TURNS = 4
"""Quarter turns, 0 to 3, anticlockwise: classes of a rotation head."""


def turned(images_NCSS: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn every image by a random number of quarter turns.

    Parameters
    ----------
    images_NCSS
        Square.
    generator
        The only source of randomness, on the CPU.

    Returns
    -------
    The turned images (N, C, S, S), and how often each was turned (N), int64.

    Raises
    ------
    DataError
        If images are not square: a quarter turn would change their shape.
    """
    height, width = images_NCSS.shape[-2:]
    if height != width:
        raise DataError(
            f"images of {height}×{width} cannot be turned by 90°; rotation prediction needs square "
            "ones"
        )
    turns_N = torch.randint(TURNS, (len(images_NCSS),), generator=generator)
    out_NCSS = images_NCSS.clone(memory_format=torch.preserve_format)
    for turns in range(1, TURNS):
        chosen_N = (turns_N == turns).to(images_NCSS.device)
        out_NCSS[chosen_N] = torch.rot90(images_NCSS[chosen_N], turns, (2, 3))
    return out_NCSS, turns_N
