"""Statistics with a salt: a manifest names each tensor's hash, and one number's can be searched.

There are 2^32 numbers of 32 bits: who sees the hash of a lab's `feature_norm`, or of the mean of
one channel, finds it in minutes. So each statistic of one dimension leaves with random
numbers below it; a matrix has too many.

C channels, or 1.
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

_NUMBERS = 8
"""Random numbers that a statistic has at least, of 24 bits each."""


def salted_shape(count: int) -> tuple[int, int]:
    """Return the shape of a salted statistic of so many numbers: itself, then rows of salt."""
    return 1 + -(-_NUMBERS // count), count


def salted(values_C: Tensor) -> Tensor:
    """Return a statistic (C) with rows of random numbers in (0, 1] below it, float32.

    One of more dimensions leaves as it is.
    """
    if values_C.ndim > 1:
        return values_C.to(torch.float32)
    rows, count = salted_shape(len(values_C))
    numbers = [(secrets.randbelow(1 << 24) + 1) / (1 << 24) for _ in range((rows - 1) * count)]
    salt = torch.tensor(numbers, dtype=torch.float32).reshape(-1, count)
    return torch.cat([values_C.to(torch.float32)[None], salt])


def unsalted(values: Tensor) -> Tensor:
    """Return a statistic (C) without its salt, if it has one: labs of before shipped none.

    A covariance is as high as wide, and a salted statistic never is.
    """
    return values[0] if values.shape == salted_shape(values.shape[-1]) else values
