"""What goes wrong in a run of `bench faults`, and when: drawn from the run's seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from rootstock.common.failpoints import FAILPOINTS

LABS = ("lab-zero", "lab-one")

POINTS = tuple(f"{name}: {action}" for name in FAILPOINTS for action in ("kill", "error"))
KILLS = ("coordinator", *LABS, "mlflow", "raylet", "gcs_server", "ray worker")
STEPS = {"a day on": 86_400, "a day back": -86_400, "an hour on": 3600, "an hour back": -3600}
"""Steps of a clock, in seconds."""

KINDS: dict[str, tuple[str, ...]] = {
    "point": POINTS,
    "kill": KILLS,
    "line": ("cut", "hold", "delay", "slow", "corrupt"),
    "store": ("away",),
    "disk": ("coordinator", "lab-one"),
    "clock": tuple(f"{who} {how}" for who in ("coordinator", "lab-one") for how in STEPS),
}
"""What each kind of fault does; `point` is a step of the product's own (`common/failpoints.py`)."""

_WEIGHTS = {"point": 6, "kill": 6, "line": 4, "store": 1, "disk": 2, "clock": 2}


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    """When, as a share of the time that an undisturbed run takes."""
    kind: str
    what: str
    lasts: float
    """Seconds, of what ends by itself."""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


def schedule(seed: int, count: int, *, without: frozenset[str] = frozenset()) -> list[Fault]:
    """Draw the faults of a run, in their order; kinds that this machine cannot do are left out."""
    draw = random.Random(seed)
    kinds = [kind for kind in KINDS if kind not in without]
    weights = [_WEIGHTS[kind] for kind in kinds]
    faults = []
    for kind in draw.choices(kinds, weights, k=count):
        what = draw.choice(KINDS[kind])
        faults.append(Fault(round(draw.random(), 3), kind, what, round(draw.uniform(1.0, 6.0), 1)))
    return sorted(faults)
