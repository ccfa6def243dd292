"""How slow a net is beside another.

Shapes: N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

WARM_UP = 2
"""Passes before the first that is timed."""


@torch.no_grad()
def latency_ratio(net: nn.Module, other: nn.Module, x_NCHW: Tensor, *, repeats: int = 20) -> float:
    """Return how long one net takes by how long another does.

    Both run in turns, and the fastest pass of each counts: what else a machine does only ever adds
    time, and adds it to both.

    Parameters
    ----------
    net, other
        In evaluation mode, on the CPU.
    x_NCHW
        Images of one pass.
    repeats
        Passes of each that are timed.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(WARM_UP + repeats):
        for taken, module in zip(seconds, (net, other), strict=True):
            began = time.perf_counter()
            module(x_NCHW)
            if turn >= WARM_UP:
                taken.append(time.perf_counter() - began)
    return min(seconds[0]) / min(seconds[1])
