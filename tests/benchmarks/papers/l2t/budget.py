"""What a run may cost: one size for a minute, one for two cores, one for a GPU, as the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.common.l2t.transfer import BETA, INNER_STEPS
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness import request
from tests.benchmarks.harness.training import Training


@dataclass(frozen=True)
class TargetTraining:
    """How the target learns: with SGD, alike for every method."""

    batch: int
    """Images a minibatch."""
    rate: float
    """Of SGD, at the schedule's height: a short rise and half a cosine."""
    meta_rate: float
    """Of Adam, for the meta-networks; constant."""
    steps: int | None = None
    """Minibatches; None: those of `epochs`."""
    epochs: int = 200
    momentum: float = 0.9
    weight_decay: float = 1e-4
    beta: float = BETA
    """Of every kind of feature matching, divided among the sources: with twice as many pairs the
    same β would weigh twice as much beside the target's own loss."""
    forgetting: float = 1.0
    """Weight of learning without forgetting; its paper's."""
    attention: float = 1000.0
    """Weight of attention transfer; its published code's."""
    inner_steps: int = INNER_STEPS
    meta_period: int = 1
    """φ moves on every that many minibatches."""

    def minibatches(self, images: int) -> int:
        """Return how many there are in all, with that many training images."""
        return self.steps or self.epochs * (images // self.batch)


@dataclass(frozen=True)
class Budget(request.Budget):
    samples: tuple[int, ...]
    """Training images a class."""
    blocks: int
    """Of a small ResNet, a stage."""
    width: int
    """Channels of the first stage of a small ResNet."""
    vgg_width: int
    vgg_blocks: int
    source: Training
    target: TargetTraining
    test_images: int | None = None
    """Evenly spread; None: all."""

    def architecture(self, name: str) -> ArchitectureSpec:
        """Return a net of that name at this size: f is all of its convolutions."""
        if name == "small-resnet":
            return ArchitectureSpec(
                name=name,
                split=f"block3_{self.blocks}",
                settings={"blocks": self.blocks, "width": self.width},
            )
        return ArchitectureSpec(
            name=name,
            split=f"pool{self.vgg_blocks}",
            settings={"blocks": self.vgg_blocks, "width": self.vgg_width, "batch_norm": True},
        )


QUICK = Budget(
    name="quick",
    seeds=1,
    samples=(10,),
    blocks=1,
    width=8,
    vgg_width=8,
    vgg_blocks=3,
    source=Training(steps=150, batch=32, learning_rate=1e-2),
    target=TargetTraining(batch=16, rate=0.05, meta_rate=1e-2, steps=60, meta_period=5),
    test_images=1000,
)
"""Shows that everything works; its nets are far from trained."""
DEFAULT = Budget(
    name="default",
    seeds=3,
    samples=(50, 100),
    blocks=1,
    width=16,
    vgg_width=16,
    vgg_blocks=3,
    source=Training(steps=3000, batch=64, learning_rate=1e-2),
    target=TargetTraining(
        batch=32,
        rate=0.05,
        meta_rate=1e-2,
        steps=600,
        meta_period=5,
        beta=10,
        forgetting=5,
        attention=1,
    ),
)
"""For two cores. β (of L2T-ww 0.5, 1, 5, 10, 20, 50; of feature matching 0.5 or 1.5, 5, 10, 20, 50)
and the weights of forgetting (1, 5, 20) and of attention (1, 10, 1000) were chosen with 100 images
a class, on training images that no net had learned from: β 10 is best or near it for all."""
FULL = Budget(
    name="full",
    seeds=3,
    samples=(50, 100, 250, 500, 1000),
    blocks=5,
    width=16,
    vgg_width=64,
    vgg_blocks=4,
    source=Training(steps=64_000, batch=128, learning_rate=1e-2),
    target=TargetTraining(batch=128, rate=0.1, meta_rate=1e-4),
)
"""The paper's sizes, for a GPU: ResNet-32, a VGG of width 64, 200 epochs."""
BUDGETS = (QUICK, DEFAULT, FULL)
