"""What ``bench solver`` measures on: a transplant, and one step's work in either of two ways.

Fresh: new draws, so V and D'_T are computed too; this is what `adjoint_speedup` compares, like for
like. Pooled: V and D'_T come from a pool, as back-distillation takes them (METHODS 1a); the other
way, which computes all of it at every step, cannot, so that ratio says what pooling adds.

Shapes: N draws, O outputs, S side of an enlarged G, C channels of x, M of h(x), H/W of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import pseudo_gradient, relu_maps
from rootstock.common.distillation.pseudo_gradients.maps import PseudoGradients
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.pseudo_gradients.rules import Shape
from rootstock.common.distillation.pseudo_gradients.signals import Draw, Signals
from rootstock.common.distillation.settings import Policy
from rootstock.common.distillation.solvers.penalties import PseudoGradientPenalty
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import feature_shape, initial_modules
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from tests.oracles.double_backward import DoubleBackward

TASK = TaskSpec(name="classification")
UNMEASURED: dict[str, Any] = dict.fromkeys(
    (
        "adjoint_speedup",
        "adjoint_memory_ratio",
        "closed_form_speedup",
        "draws_per_second",
        "bound_draws_per_second",
    )
)
"""What every row has, for what a part does not measure."""
MOVED = 0.3
"""Standard deviation by which teacher and student have moved from their common start, in those
of a layer's weights: two labs that trained on."""


@dataclass(frozen=True)
class Case:
    """One row."""

    net: str
    architecture: ArchitectureSpec
    policy: Policy
    size: int
    """S of an enlarged G; Exp. 1's is 1."""
    kernel: int
    draws: int
    """N of one step."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    reordered: bool = False
    """Whether teacher and student are one net and the reorder layer shuffles x (Exp. 1)."""

    def problem(self) -> TransplantProblem:
        """Build two task modules that have moved from a common start."""
        teacher, student = (self._task(seed) for seed in (1, 1 if self.reordered else 2))
        return TransplantProblem(teacher, student, feature_shape(self.architecture))

    def adapter(self, seed: int = 0) -> Adapter:
        """Build an adapter of one convolution, at a random start."""
        channels = feature_shape(self.architecture)[0]
        spec = AdapterSpec.model_validate(
            {"in_channels": channels, "out_channels": channels, "kernel": self.kernel}
        )
        adapter = Adapter(spec).random_start(torch.Generator().manual_seed(seed))
        for conv in adapter.convolutions():
            conv.to(self.dtype)
        adapter.set_permutation(self.permutation())
        return adapter.to(self.device)

    def permutation(self) -> Tensor:
        channels = feature_shape(self.architecture)[0]
        if not self.reordered:
            return torch.arange(channels)
        return torch.randperm(channels, generator=torch.Generator().manual_seed(0))

    def _task(self, seed: int) -> torch.nn.Sequential:
        module = initial_modules(self.architecture, [TASK], seed=0)[1][TASK.name]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in module.parameters():
                if weight.ndim > 1:
                    noise = torch.empty_like(weight).normal_(generator=generator)
                    weight.add_(noise.mul_(MOVED * weight.std()))
        return module.to(device=self.device, dtype=self.dtype)


_SMALL = ArchitectureSpec(name="small-vgg", split="pool1")
_TINY = ArchitectureSpec(name="small-vgg", split="pool1", settings={"width": 4})
_VGG16 = ArchitectureSpec(name="vgg16", split="pool1")

CASES = {
    "tiny": Case("small-vgg", _TINY, "exp1", 1, 3, draws=4),
    "tiny-exp2": Case("small-vgg", _TINY, "exp2", 2, 1, draws=8),
    "small-vgg": Case("small-vgg", _SMALL, "exp1", 1, 3, draws=32),
    "small-vgg-exp2": Case("small-vgg", _SMALL, "exp2", 3, 1, draws=32),
    "vgg16": Case("vgg16", _VGG16, "exp1", 1, 3, draws=1),
}
"""Nets of 32 and 224 pixels, split after their first five layers as in the paper; tiny warms up."""


class Step:
    """Prepared work of one case: draws lie ready, so that both ways are given the same."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.problem = case.problem()
        self.adapter = case.adapter()
        self.channels = self.adapter.spec.out_channels
        self.signals = Signals.between(
            self.problem, self.channels, policy=case.policy, size=case.size
        )
        draw = self.signals.draw(case.draws, torch.Generator().manual_seed(0))
        draw = draw.to(torch.device(case.device))
        self.draw = Draw(draw.G_NOSS.to(case.dtype), draw.masks)
        self.weights = [conv.weight for conv in self.adapter.convolutions()]
        self.size_HW = self._nominal_size()
        self._pool: DrawPool | None = None
        self._slow: DoubleBackward | None = None

    def maps(self) -> tuple[Tensor, Tensor]:
        """Return V (N, M, H, W) and D'_T (N, C, H, W) of the draws, by adjoints."""
        # Anew each time: what it keeps between batches must be paid for here.
        source = PseudoGradients(self.problem, self.channels, self.signals, draws=self.case.draws)
        return source(self.draw)

    def fresh(self) -> list[Tensor]:
        """Take one step on new draws, by adjoints; return its gradient."""
        return self._gradient(DrawPool(*self.maps(), alpha=1.0, teacher_norm=1.0))

    def fill(self) -> None:
        self._pool = DrawPool(*self.maps(), alpha=1.0, teacher_norm=1.0)

    def pooled(self) -> list[Tensor]:
        """Take one step on draws of the pool; return its gradient."""
        if self._pool is None:
            self.fill()
        assert self._pool is not None  # filled above
        return self._gradient(self._pool)

    def relu_maps(self) -> dict[str, Shape]:
        """Return the shape of the gradient map at every ReLU of a task module."""
        return relu_maps(
            self.problem.student_task,
            input_shape_CHW=(self.channels, *self.problem.feature_shape[1:]),
            size=self.case.size,
        )

    def prepare(self, way: str) -> None:
        """Build what a way needs, so that its memory is not counted."""
        if way == "double_backward":
            self._oracle()

    def double_backward(self) -> list[Tensor]:
        """Take one step on new draws, as the paper does; return its gradient."""
        return self._oracle().gradient(self.draw, self.size_HW, alpha=1.0, scale=1.0)

    def _oracle(self) -> DoubleBackward:
        if self._slow is None:
            self._slow = DoubleBackward(self.problem, self.adapter, enlarged=self.case.size > 1)
        return self._slow

    def _nominal_size(self) -> tuple[int, int]:
        channels, height, width = self.problem.feature_shape
        with torch.device("meta"):
            task = initial_modules(self.case.architecture, [TASK], seed=0)[1][TASK.name]
            G = torch.empty(1, 1, self.case.size, self.case.size)
        with torch.no_grad():
            D = pseudo_gradient(task, G, input_shape_CHW=(channels, height, width))
        return D.shape[2], D.shape[3]

    def _gradient(self, pool: DrawPool) -> list[Tensor]:
        penalty = PseudoGradientPenalty(
            self.problem, pool, weight=1.0, draws_per_step=self.case.draws
        )
        loss = penalty.loss(self.adapter, torch.Generator())
        return list(torch.autograd.grad(loss, self.weights))


def disagreement(one: list[Tensor], other: list[Tensor]) -> float:
    """Return ‖a − b‖ / ‖b‖ of two gradients."""
    a, b = (torch.cat([x.flatten() for x in xs]).double() for xs in (one, other))
    return float((a - b).norm() / b.norm())
