"""Finds which channels of teacher and student correspond, by their pseudo-gradients alone.

Nets that grew from common initial weights hold much the same units, in an order that the reorder
layer hides. The closed form (`closed_form`) fits any linear map, and where teacher and student
differ a little its fit spends itself on directions that the draws hardly excite. Here the map is
held to a permutation: channel m of h(x) is the channel c of x whose pseudo-gradients D'_T are most
like V = J'_gS^T G, for all channels at once (an assignment problem). No image, no sample, no step.

Dummy-2 masks tell channels apart far better than dummy-1 alone. On small FCNs fine-tuned from one
start (16 channels, cat and horse onto dog's task module, single seeds), Exp. 2's draws found all 16
in all four cases tried, Exp. 1's in three (10 in the other, at a likeness of 0.19), Exp. 3's 5 and
9 in the two where it was tried.

Shapes: N draws, C channels of x, M channels of h(x), P places of all draws.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.maps import in_batches
from rootstock.common.distillation.settings import Draws
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec

_DRAWS = 64


def matched(
    problem: TransplantProblem,
    spec: AdapterSpec,
    drawn: Draws,
    *,
    permutation_C: Tensor | None = None,
) -> tuple[Adapter, float]:
    """Learn an adapter that passes every channel on to the one that it corresponds to.

    `_DRAWS` draws are enough, however many are asked for. Returns the adapter, its first
    convolution a permutation and the others Dirac kernels, biases zero; and the mean correlation of
    D'_T and V of matched channels: 1 if the task modules are the same, near 0 if nothing
    corresponds. Of C ≠ M channels the smaller number is matched.
    """
    from scipy.optimize import linear_sum_assignment  # the coordinator has it, a lab has not

    adapter = problem.identity_start(spec, permutation_C)
    products_MC = torch.zeros(spec.out_channels, spec.in_channels, dtype=torch.float64)
    squares_M, squares_C = (torch.zeros(n, dtype=torch.float64) for n in products_MC.shape)
    for maps in in_batches(problem, adapter, replace(drawn, count=_DRAWS), _DRAWS // 2):
        V_MP, D_CP = (map_NCHW.transpose(0, 1).flatten(1).double() for map_NCHW in maps)
        D_CP = D_CP[adapter.permutation]
        products_MC += (V_MP @ D_CP.T).cpu()
        squares_M += V_MP.square().sum(1).cpu()
        squares_C += D_CP.square().sum(1).cpu()
    scale_MC = (squares_M[:, None] * squares_C).sqrt()
    if not 0 < float(scale_MC.max()) < float("inf"):
        raise TransplantError(
            "the pseudo-gradients of teacher or student are zero or not finite; a task module "
            "that is dead or not finite cannot be transplanted"
        )
    # A dead channel is like none: its products are zero as well.
    correlation_MC = products_MC / scale_MC.clamp_min(torch.finfo(torch.float64).tiny)
    rows, columns = linear_sum_assignment(correlation_MC.numpy(), maximize=True)
    first_conv = adapter.convolutions()[0]
    centre = spec.kernel // 2
    with torch.no_grad():
        first_conv.weight.zero_()
        first_conv.weight[rows, columns, centre, centre] = 1.0
    return adapter, float(correlation_MC[rows, columns].mean())
