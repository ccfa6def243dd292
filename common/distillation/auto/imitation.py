"""Imitation keeps y_S = g_S(h(x)) near y_T = g_T(x) at features of any images (METHODS 1f, 1i).

The teacher is at hand, so every image is a training pair, whatever it shows: a sample, a view of
one, a dream, a synthetic image. Outputs are compared as they are, not as probabilities: where both
are sure, probabilities say nothing, and a logit still tells one image from another. On CIFAR-10,
synthetic images of which 3% look like the category gave 18% error so, with no sample at all.

Shapes: N images, C channels of x, H/W height and width, O… the shape of an output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.training import in_batches


@dataclass(frozen=True)
class Answers:
    """Features, and the teacher's answers to them."""

    features_NCHW: Tensor
    y_T_NO: Tensor

    @classmethod
    def to(cls, problem: TransplantProblem, features_NCHW: Tensor) -> Self:
        """Ask the teacher; answers that are not finite, or all the same, are refused."""
        y_T_NO = in_batches(problem.teacher_task, features_NCHW)
        if not 0 < float(y_T_NO.double().var()) < float("inf"):
            raise TransplantError(
                f"the teacher's answers to {len(y_T_NO)} images have variance "
                f"{float(y_T_NO.double().var())}; a task module that always says the same, or "
                "nothing finite, cannot be imitated"
            )
        return cls(features_NCHW, y_T_NO)

    def parted(self, share: float, generator: torch.Generator) -> tuple[Answers, Answers]:
        """Return the answers to learn from, and a share of them to judge by."""
        count = len(self.y_T_NO)
        if count < 2:
            raise TransplantError(
                f"{count} image is too few to learn from and to judge by; show more views"
            )
        order = torch.randperm(count, generator=generator).to(self.y_T_NO.device)
        kept = min(count - 1, max(1, round(share * count)))
        parts = order[kept:], order[:kept]
        first, second = (Answers(self.features_NCHW[p], self.y_T_NO[p]) for p in parts)
        return first, second

    def distance(self, adapter: nn.Module, task_module: nn.Module) -> float:
        """Return ‖y_S − y_T‖ / ‖y_T − E y_T‖: 0 is the teacher itself, 1 is a constant."""
        y_S_NO = in_batches(nn.Sequential(adapter, task_module), self.features_NCHW)
        spread = (self.y_T_NO - self.y_T_NO.mean()).norm()
        return float((y_S_NO - self.y_T_NO).norm() / spread)


@dataclass(frozen=True)
class ImitationPenalty:
    """Huber's loss between y_S and y_T: squares below one logit, so that far outliers do not rule.

    A step takes `batch_size` of the images that the teacher answered.
    """

    problem: TransplantProblem
    answers: Answers
    weight: float
    batch_size: int

    def loss(self, adapter: Adapter, generator: torch.Generator) -> Tensor:
        """Return the term for some of the images."""
        answers = self.answers
        chosen = torch.randint(len(answers.y_T_NO), (self.batch_size,), generator=generator)
        chosen = chosen.to(answers.y_T_NO.device)
        y_S_NO = self.problem.student_task(adapter(answers.features_NCHW[chosen]))
        return self.weight * F.smooth_l1_loss(y_S_NO, answers.y_T_NO[chosen])
