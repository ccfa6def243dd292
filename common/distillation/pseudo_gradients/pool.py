"""A pool of draws with their pseudo-gradients, computed once and reused (METHODS 1a).

Shapes: N draws, C channels of x, M channels of h(x), H/W height and width of the gradient maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.maps import PseudoGradients
from rootstock.common.distillation.pseudo_gradients.signals import Signals
from rootstock.common.distillation.settings import Draws
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter

_CHUNK = 16
"""Draws at a time while the pool is filled: bounds the memory of maps inside the task modules."""


@dataclass(frozen=True)
class DrawPool:
    """V and D'_T of some draws, and the scales that follow from them."""

    V_NMHW: Tensor
    D_T_NCHW: Tensor
    alpha: float
    """α = E‖D'_T‖ / (β E‖V‖). The paper's E‖D'_S‖ over the categories that g_S already holds is
    E‖V‖, at the magnitude of f_S(I); x only has it after × β, and D'_S is taken at x."""
    teacher_norm: float
    """E‖D'_T‖."""

    @classmethod
    def filled(
        cls,
        problem: TransplantProblem,
        adapter: Adapter,
        drawn: Draws,
        max_bytes: int,
    ) -> Self:
        """Draw, and compute what does not depend on the adapter's weights.

        The adapter gives channels, β and device. The same seed gives the same pool; fewer draws are
        kept if the maps would need more than `max_bytes`. For the rest see `Signals`.
        """
        device = adapter.beta.device
        channels = adapter.spec.out_channels
        signals = Signals.between(problem, channels, policy=drawn.policy, size=drawn.size)
        maps = PseudoGradients(problem, channels, signals, draws=drawn.count)
        generator = torch.Generator().manual_seed(drawn.seed)
        parts: list[tuple[Tensor, Tensor]] = []
        count, wanted = 0, drawn.count
        while count < wanted:
            # One draw first: its size says how many fit.
            draw = signals.draw(1 if not parts else min(_CHUNK, wanted - count), generator)
            parts.append(maps(draw.to(device)))
            count += len(draw.G_NOSS)
            if len(parts) == 1:
                wanted = max(1, min(wanted, max_bytes // sum(x.nbytes for x in parts[0])))
        V_NMHW = torch.cat([V for V, _ in parts])
        D_T_NCHW = torch.cat([D_T for _, D_T in parts])
        student_norm, teacher_norm = (_mean_norm(x) for x in (V_NMHW, D_T_NCHW))
        for name, norm in (("student", student_norm), ("teacher", teacher_norm)):
            if not 0 < norm < float("inf"):
                raise TransplantError(
                    f"the {name}'s pseudo-gradients have mean norm {norm}; a task module that is "
                    "dead or not finite cannot be distilled"
                )
        alpha = teacher_norm / (float(adapter.beta) * student_norm)
        return cls(V_NMHW, D_T_NCHW, alpha, teacher_norm)


def _mean_norm(x_NCHW: Tensor) -> float:
    return float(x_NCHW.double().flatten(1).norm(dim=1).mean())
