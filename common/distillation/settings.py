"""Settings of the methods as documents, which configuration reads without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from rootstock.common.documents import Document


class MethodName(StrEnum):
    """A way to find an adapter, as configuration and commands call it."""

    IDENTITY = "identity"
    CLOSED_FORM = "closed-form"
    BACK_DISTILL = "back-distill"
    DIRECT_LEARN = "direct-learn"
    DISTILL = "distill"
    JACOBIAN = "jacobian"
    DREAM = "dream"
    AUTO = "auto"

    @property
    def needs_samples(self) -> bool:
        """Whether it is an error to have no samples."""
        return self in (MethodName.DIRECT_LEARN, MethodName.DISTILL, MethodName.JACOBIAN)


Policy = Literal["exp1", "exp2", "exp3"]
"""exp1: G = 1 and dummy-2 at every ReLU of the task module. exp2: G uniform in [−1, 1]^(S×S) and
dummy-2 at the lowest ReLU alone, 20% positive, one mask for all channels. exp3, for segmentation:
G uniform in [−1, 1]^(H×W) of the output, dummy-1 everywhere."""


@dataclass(frozen=True)
class Draws:
    """The draws at which pseudo-gradients are taken; `size` is S of Exp. 2's enlarged G."""

    policy: Policy = "exp1"
    count: int = 512
    size: int = 3
    seed: int = 0


DEFAULT_DRAWS = Draws()


Start = Literal["random", "identity", "closed-form", "matched"]
"""Where an adapter begins; the paper's begin at random."""


class BackDistillationSettings(Document):
    """Settings of back-distillation; defaults served best with 10 samples of 32-pixel digits."""

    steps: int = Field(default=200, ge=0, le=1_000_000)
    learning_rate: float = Field(default=3e-3, gt=0, le=10)
    """Adam's at the start; a cosine takes it to zero over the steps."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Decoupled, on the distance to the adapter's starting point: few samples move it little."""
    batch_size: int = Field(default=64, ge=1, le=65_536)
    """Samples a step; fewer samples than that all take part in each step."""
    balanced: bool = True
    """Whether category and rest weigh the same in the task loss, however many there are of each.
    Pixels never do: pixel accuracy counts all alike."""
    distillation: float = Field(default=10.0, ge=0, le=1e6)
    """λ · E‖D'_T‖: 10 for classification, 1 for segmentation; 0 leaves the distillation out."""
    policy: Policy = "exp1"
    size: int = Field(default=3, ge=1, le=64)
    """S of Exp. 2's enlarged G; the paper's 7 was no better at 32 pixels and costs more."""
    draws: int = Field(default=512, ge=1, le=1_000_000)
    """Draws in the pool. Fewer are kept where they would need more than `pool_bytes`."""
    draws_per_step: int = Field(default=32, ge=1, le=65_536)
    pool_bytes: int = Field(default=1 << 30, ge=1 << 20)
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    def drawn(self) -> Draws:
        """Return the draws that these settings ask for."""
        return Draws(self.policy, self.draws, self.size, self.seed)


class DreamSettings(Document):
    """Settings of a dream."""

    images: int = Field(default=96, ge=4, le=4096)
    max_pixels: int = Field(default=1 << 20, ge=1 << 12)
    """Cap on all images together: there are fewer then, but 4 at least. They go through the net in
    one batch; 17 of 224 pixels take about 2 GB of VGG-16."""
    steps: int = Field(default=150, ge=1, le=100_000)
    learning_rate: float = Field(default=0.1, gt=0, le=10)
    """Adam's, in units of the nets' input; a cosine takes it to zero."""
    statistics: float = Field(default=1.0, ge=0, le=1e4)
    """Weight of the moments' loss."""
    confidence: float = Field(default=1.0, ge=0, le=1e4)
    """Weight of the class loss."""
    smoothness: float = Field(default=0.05, ge=0, le=1e4)
    """Weight of the mean squared difference of neighbouring pixels."""
    beside_draws: int = Field(default=64 * 64, ge=0)
    """Pixels of an image above which `auto` does not dream where it can draw features. Dreams of
    large images take most of a merge's time, and carried less."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the images that show the category."""
    jitter: int = Field(default=2, ge=0, le=32)
    """Pixels by which images are rolled at most in a step, so that none is tied to a grid."""
    max_class_loss: float = Field(default=0.2, gt=0)
    """A dream whose teacher stays unsure is not used (METHODS 1i: 0.02 served, 0.97 did not)."""
    max_statistics_loss: float = Field(default=0.25, gt=0)
    """Nor is one whose moments are off by more. On digits noise had 0.9 to 1.8, dreams 0.01 to
    0.12."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)


class TeachingSettings(Document):
    """Settings of the methods `dream` and `auto`: images for the teacher, and their imitation."""

    drawn: int = Field(default=3000, ge=0, le=1_000_000)
    """Features drawn from the moments that a lab ships, of `auto`."""
    dream_views: int = Field(default=1400, ge=0, le=1_000_000)
    """Strong views of all dreams together; these and the others are shown besides the images."""
    sample_views: int = Field(default=1400, ge=0, le=1_000_000)
    synthetic: int = Field(default=128, ge=0, le=1_000_000)
    """Synthetic images, of `auto`."""
    synthetic_views: int = Field(default=128, ge=0, le=1_000_000)
    max_feature_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Cap on all features and the teacher's answers to them; above it there are fewer. VGG-16's at
    pool1 and 224 pixels have 3.2 MB each."""
    judged: float = Field(default=0.15, gt=0, lt=1)
    """Share of all that is shown, kept apart to judge adapters by."""
    good_enough: float = Field(default=0.05, ge=0, le=1)
    """`auto` learns nothing where y_S is within this distance of y_T, in units of y_T's spread."""
    steps: int = Field(default=400, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Weight of imitation, where the task loss of samples weighs 1."""


class MethodSettings(Document):
    """Settings of all methods. Each uses those that concern it."""

    start: Start | None = None
    """None is the method's own: the closed form for `dream` and `auto`, else random, as in the
    paper."""
    ridge: float = Field(default=1e-6, ge=0, le=1e6)
    """The closed form's damping."""
    dream: DreamSettings = DreamSettings()
    teaching: TeachingSettings = TeachingSettings()
    learning: BackDistillationSettings = BackDistillationSettings()
    """Steps, rates, draws, seed."""


class TaskLearningSettings(Document):
    """Settings that train a task module on a few dozens to thousands of samples."""

    steps: int = Field(default=400, ge=1, le=1_000_000)
    """Batches in all, whatever the number of categories."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """AdamW's at the start; a cosine takes it to zero over the steps."""
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    batch_size: int = Field(default=32, ge=2, le=65_536)
    """Half of it of the category, half of the rest."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)


class AugmentConfig(Document):
    """Random changes of training images, drawn anew each epoch."""

    shift: float = Field(default=0.06, ge=0, le=0.5)
    """Largest shift each way, as a share of the image's side."""
    zoom: float = Field(default=0.0, ge=0, le=0.9)
    """Zoom factor drawn from 1−zoom to 1+zoom."""
    rotation: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation each way, in degrees."""
    flip: bool | None = None
    """Mirror left-right every other time; None: yes, but not for digits."""
    colour: float = Field(default=0.0, ge=0, le=1)
    """Largest relative change of brightness, contrast and of each channel."""
    erase: float = Field(default=0.0, ge=0, le=0.5)
    """Side of a random square set to the mean, as a share of the image's side."""


STILL = AugmentConfig(shift=0, flip=False)
"""Images as they are."""
