"""How learning rates fall over a training."""

from __future__ import annotations

import math


def cosine(step: int, steps: int) -> float:
    """Return a rate's factor after so many of all steps: half a cosine, from 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
