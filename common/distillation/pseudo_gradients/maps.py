"""V and D'_T of many draws, which a transplant's pseudo-gradients are made of (METHODS 1a).

Neither holds an adapter weight, so no graph is recorded. In Exp. 2 no ReLU but the lowest has a
mask, so all that stands above it is one linear map of G, the same for every draw: it is worked out
once per place of G, and a draw needs only the layers below. VGG-16 has 1 of its 12 there.

Shapes: N draws, O outputs, S side of an enlarged G, C channels of x, M of h(x), H/W of a map,
P = O S S entries of G.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape, pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.rules import Shape
from rootstock.common.distillation.pseudo_gradients.signals import Draw, Signals
from rootstock.common.distillation.settings import Draws
from rootstock.common.nets.adapter import Adapter

MAX_BASIS_BYTES = 256 << 20
"""Memory that one task module may take for it; VGG-16 at 224 pixels takes 95 MB for S = 3."""


class PseudoGradients:
    """V = J'_gS^T G (N, M, H', W') and D'_T (N, C, H', W') for the same draws.

    `channels` are M, which g_S takes; `draws` is how many are going to be asked for.
    """

    def __init__(
        self, problem: TransplantProblem, channels: int, signals: Signals, *, draws: int
    ) -> None:
        shape = problem.feature_shape
        self._student = _Source(problem.student_task, (channels, *shape[1:]), signals, draws)
        self._teacher = _Source(problem.teacher_task, shape, signals, draws)

    def __call__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return V and D'_T."""
        with torch.no_grad():
            return self._student(draw), self._teacher(draw)


def in_batches(
    problem: TransplantProblem, adapter: Adapter, drawn: Draws, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield V and D'_T of draws, a batch at a time, on the adapter's device."""
    channels = adapter.spec.out_channels
    signals = Signals.between(problem, channels, policy=drawn.policy, size=drawn.size)
    maps = PseudoGradients(problem, channels, signals, draws=drawn.count)
    generator = torch.Generator().manual_seed(drawn.seed)
    for first in range(0, drawn.count, batch):
        draw = signals.draw(min(batch, drawn.count - first), generator)
        yield maps(draw.to(adapter.beta.device))


class _Source:
    def __init__(self, module: nn.Sequential, shape: Shape, signals: Signals, draws: int) -> None:
        self._module, self._shape = module, shape
        self._upper: nn.Sequential | None = None
        self._basis_PCHW: Tensor | None = None
        entries = torch.Size(signals.G_shape).numel()
        path = next(iter(signals.maps), "")
        names = [name for name, _ in module.named_children()]
        # A ReLU inside a block has no above and below.
        if signals.policy != "exp2" or path not in names or entries >= draws:
            return
        place = names.index(path) + 1
        self._between = output_shape(module[:place], shape)
        pixels = torch.Size(signals.maps[path][1:]).numel()
        size = next(module.parameters()).element_size()
        if entries * self._between[0] * pixels * size <= MAX_BASIS_BYTES:
            self._module, self._upper = module[:place], module[place:]

    def __call__(self, draw: Draw) -> Tensor:
        G_NOSS = draw.G_NOSS
        if self._upper is not None:
            if self._basis_PCHW is None:
                P = G_NOSS[0].numel()
                each = torch.eye(P, dtype=G_NOSS.dtype, device=G_NOSS.device)
                self._basis_PCHW = pseudo_gradient(
                    self._upper, each.reshape(P, *G_NOSS.shape[1:]), input_shape_CHW=self._between
                )
            combined = G_NOSS.flatten(1) @ self._basis_PCHW.flatten(1)
            G_NOSS = combined.reshape(-1, *self._basis_PCHW.shape[1:])
        return pseudo_gradient(self._module, G_NOSS, input_shape_CHW=self._shape, masks=draw.masks)
