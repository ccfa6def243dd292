"""What a run may cost: a minute, twenty minutes a task on two cores, or hours."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.common.nettailor.learning import Settings
from tests.benchmarks.harness import request
from tests.benchmarks.harness.training import Training


@dataclass(frozen=True)
class Budget(request.Budget):
    blocks: int
    """Of the small ResNet, a stage."""
    width: int
    """Channels of its first stage."""
    backbone: Training
    """Of the universal blocks, with Adam."""
    batch: int
    """Images a minibatch, of everything but the backbone."""
    teacher: Settings
    """Of the fine-tuned original."""
    student: Settings
    """Of the augmented net."""
    tuning: Settings
    """Of one tuning of a pruned net; the search may ask for several."""
    held: int = 2000
    """Training images held apart at most, for the search; never more than a fifth."""
    test_images: int | None = None
    """Test images of a task, evenly spread; None: all."""
    repeats: int = 100
    """Passes that are timed."""


QUICK = Budget(
    name="quick",
    seeds=1,
    blocks=1,
    width=8,
    backbone=Training(steps=150, batch=32, learning_rate=1e-2),
    batch=32,
    teacher=Settings(steps=150, learning_rate=0.05),
    student=Settings(steps=200, attention_rate=5, mimicry=0.1),
    tuning=Settings(steps=80, learning_rate=0.05, complexity=0, mimicry=0.1),
    held=500,
    test_images=1000,
    repeats=50,
)
"""Shows that everything works; its nets are far from trained."""
DEFAULT = Budget(
    name="default",
    seeds=3,
    blocks=3,
    width=8,
    backbone=Training(steps=2500, batch=64, learning_rate=1e-2),
    batch=32,
    teacher=Settings(steps=1500, learning_rate=0.05),
    student=Settings(steps=2000, attention_rate=5, mimicry=0.1),
    tuning=Settings(steps=300, learning_rate=0.05, complexity=0, mimicry=0.1),
)
"""About twenty minutes a task on two cores. Trainings are a fraction of the published
runs', and rates and γ2 are others: on digits' images held apart, 250 steps of a student came to 75%
with γ2 = 10 and to 95% with 0.1, where the teacher had 96%; on MNIST's, 1500 steps with γ2 = 1 to
97.3% after a tuning, where 2500 with 0.1 had 98.0%."""
FULL = Budget(
    name="full",
    seeds=5,
    blocks=3,
    width=16,
    backbone=Training(steps=30_000, batch=128, learning_rate=1e-2),
    batch=64,
    teacher=Settings(steps=10_000, learning_rate=0.01),
    student=Settings(steps=20_000),
    tuning=Settings(steps=5_000, learning_rate=0.01, complexity=0),
)
"""ResNet-20 and the rates of the published runs; a day on two cores."""
BUDGETS = (QUICK, DEFAULT, FULL)
