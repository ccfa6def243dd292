"""What a run may cost: one size for a minute, one for two cores, one for a GPU, as the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.common.nets.spec import ArchitectureSpec, Setting
from tests.benchmarks.harness import request
from tests.benchmarks.harness.training import Training


@dataclass(frozen=True)
class Budget(request.Budget):
    blocks: int
    """Of the small ResNets, a stage."""
    width: int
    """Channels of their first stage."""
    photographs: Training
    """On CIFAR-10."""
    grey: Training
    """On digits and other grey tasks."""
    extractors: Training
    """Of extractors of several architectures, and of the head that is extended above one."""
    adapting: Training
    """Of an extractor to another domain."""
    tuning: Training
    """Of an extractor and a head after transfer."""
    unlabelled: int = 2048
    """Training images that BatchNorm's statistics are re-estimated on after recombining."""
    test_images: int | None = None
    """Test images of a task, evenly spread; None: all."""
    transfer_images: int | None = None
    """The same for `transfer`, which judges each net at several steps."""
    targets: int = 3
    """Tasks that `transfer` transfers to."""

    def resnet(self, split: str = "", **more: Setting) -> ArchitectureSpec:
        """Return the small ResNet; it splits after its second stage unless told otherwise."""
        return ArchitectureSpec(
            name="small-resnet",
            split=split or f"block2_{self.blocks}",
            settings={"blocks": self.blocks, "width": self.width, **more},
        )

    def of(self, setting: str) -> Training:
        """Return how a setting's nets are trained."""
        grey = dict.fromkeys(("uda", "transfer"), self.grey)
        return {"architectures": self.extractors, **grey}.get(setting, self.photographs)


QUICK = Budget(
    name="quick",
    seeds=1,
    blocks=1,
    width=8,
    photographs=Training(steps=160, batch=32, learning_rate=1e-2),
    grey=Training(steps=150, batch=32, learning_rate=2e-2),
    extractors=Training(steps=60, batch=32, learning_rate=1e-2),
    tuning=Training(20, 32, 1e-3, weight_decay=0, decay="constant"),
    adapting=Training(100, 64, 1e-4, weight_decay=0, decay="constant"),
    unlabelled=512,
    test_images=2000,
    transfer_images=500,
    targets=1,
)
"""Shows that everything works; its nets are far from trained."""
DEFAULT = Budget(
    name="default",
    seeds=3,
    blocks=1,
    width=8,
    photographs=Training(steps=1250, batch=32, learning_rate=1e-2),
    grey=Training(steps=800, batch=32, learning_rate=1e-2),
    transfer_images=2000,
    extractors=Training(steps=750, batch=32, learning_rate=1e-2),
    tuning=Training(100, 32, 1e-3, weight_decay=0, decay="constant"),
    adapting=Training(300, 64, 1e-4, weight_decay=0, decay="constant"),
)
"""A quarter of an hour on two cores for each setting. Learning rates were chosen on training images
that no net had learned from."""
FULL = Budget(
    name="full",
    seeds=10,
    blocks=9,
    width=16,
    photographs=Training(steps=20_000, batch=512, learning_rate=0.01, decay="tenths"),
    grey=Training(steps=20_000, batch=512, learning_rate=0.01, decay="tenths"),
    extractors=Training(steps=20_000, batch=512, learning_rate=0.01, decay="tenths"),
    tuning=Training(1000, 512, 1e-3, weight_decay=0, decay="constant"),
    adapting=Training(1000, 512, 1e-5, weight_decay=0, decay="constant"),
)
"""The paper's: ResNet-56 (appendix C), for a GPU."""
BUDGETS = (QUICK, DEFAULT, FULL)
