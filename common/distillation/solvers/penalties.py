"""Terms of an adapter's loss beside the task: pseudo-gradients are compared, or real ones.

A penalty is one term of the loss. Back-distillation's (paper, Eq. 3) needs no image; the Jacobian
baseline's compares real gradients at the features of samples.

Shapes: N draws or samples, C channels of x, M channels of h(x), H/W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.training import device_of, some


class Penalty(Protocol):
    """A term of the loss."""

    def loss(self, adapter: Adapter, generator: torch.Generator) -> Tensor:
        """Return the term () for the adapter as it is, its graph reaching the weights.

        All that is random in it comes from the generator, so that a resumed run repeats it.
        """


@dataclass(frozen=True)
class PseudoGradientPenalty:
    """λ ‖α D'_S − D'_T‖², mean over a step's draws (paper, Eq. 3)."""

    problem: TransplantProblem
    pool: DrawPool
    weight: float
    """λ · E‖D'_T‖."""
    draws_per_step: int

    def loss(self, adapter: Adapter, generator: torch.Generator) -> Tensor:
        """Return the term for some draws of the pool."""
        pool, shape = self.pool, self.problem.feature_shape
        V_NMHW, D_T_NCHW = some(self.draws_per_step, generator, pool.V_NMHW, pool.D_T_NCHW)
        D_S_NCHW = pseudo_gradient(adapter, V_NMHW, input_shape_CHW=shape)
        square_N = (pool.alpha * D_S_NCHW - D_T_NCHW).square().flatten(1).sum(1)
        return self.weight / pool.teacher_norm * square_N.mean()


class JacobianPenalty:
    """λ ‖∂y_S/∂x − ∂y_T/∂x‖² at the samples: the paper's baseline "Jacobian distillation".

    Real gradients, which depend on every ReLU and maximum of the feature maps, and no α to balance
    student and teacher. `weight` is λ · E‖∂y_T/∂x‖; labels do not take part.
    """

    def __init__(
        self, problem: TransplantProblem, samples: Samples, *, weight: float, batch_size: int
    ) -> None:
        if samples.labels_N.ndim != 1:
            raise TransplantError(
                "Jacobian distillation compares the gradients of one output and a segmentation "
                "has one for each pixel; use back-distill, whose G is drawn for all of them"
            )
        self._student_task, self._batch_size = problem.student_task, batch_size
        g_T = problem.teacher_task
        self._features_NCHW = samples.features_NCHW
        self._D_T_NCHW = torch.cat(
            [
                real_gradient(g_T, x_NCHW.to(device_of(g_T)), create_graph=False)
                for x_NCHW in torch.split(samples.features_NCHW, batch_size)
            ]
        )
        norm = float(self._D_T_NCHW.double().flatten(1).norm(dim=1).mean())
        if not 0 < norm < float("inf"):
            raise TransplantError(
                f"the teacher's gradients at the samples have mean norm {norm}; a task module "
                "that is dead or not finite there cannot be distilled"
            )
        self._scale = weight / norm

    def loss(self, adapter: Adapter, generator: torch.Generator) -> Tensor:
        """Return the term for some of the samples."""
        x_NCHW, D_T_NCHW = some(self._batch_size, generator, self._features_NCHW, self._D_T_NCHW)
        device = adapter.beta.device
        student = torch.nn.Sequential(adapter, self._student_task)
        D_S_NCHW = real_gradient(student, x_NCHW.to(device), create_graph=True)
        square_N = (D_S_NCHW - D_T_NCHW.to(device)).square().flatten(1).sum(1)
        return self._scale * square_N.mean()


def real_gradient(module: torch.nn.Module, x_NCHW: Tensor, *, create_graph: bool) -> Tensor:
    """Return ∂y/∂x (N, C, H, W) at features, y summed over outputs."""
    x_NCHW = x_NCHW.detach().clone().requires_grad_()
    y = module(x_NCHW).sum()
    (D_NCHW,) = torch.autograd.grad(y, x_NCHW, create_graph=create_graph)
    return D_NCHW
