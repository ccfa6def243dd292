"""Times of pieces of work that are to be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

Work = Callable[[], object]


def seconds(work: Work, device: str = "cpu") -> float:
    """Time one piece of work to its end."""
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


def rounds(
    works: Sequence[Work], count: int, *, warm_up: int = 1, device: str = "cpu"
) -> list[tuple[float, ...]]:
    """Return each piece of work's seconds in every round.

    They alternate, so that a busy machine is fair to all.
    """
    for _ in range(warm_up):
        for work in works:
            work()
    times = [[seconds(work, device) for work in works] for _ in range(count)]
    return list(zip(*times, strict=True))


def in_turns(works: Sequence[Work], count: int, device: str = "cpu") -> list[float]:
    """Return the median seconds of each, in turns."""
    return [median(each) for each in rounds(works, count, device=device)]


def wait(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
