"""Finds an edge's output calibration, y ↦ scale · y + bias (`rootstock.common.nets.calibration`).

What pseudo-gradients leave open is mostly the threshold (METHODS 1h, 1i): two numbers per edge set
it, from a few labelled samples or from a teacher at hand.

Shapes: N samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation import problem
from rootstock.common.errors import TransplantError
from rootstock.common.nets.calibration import MAX_CALIBRATION, Calibration

_NEWTON_STEPS = 50
_TOLERANCE = 1e-10


def calibrate_by_labels(
    y_N: Tensor, labels_N: Tensor, *, balanced: bool = True, prior: float = 1e-3
) -> Calibration:
    """Fit σ(scale · y + bias) to labels by cross-entropy (Platt, 1999).

    Labels are 1 for the category, 0 for the rest; or σ(y_T), which needs no label. If `balanced`,
    category and rest weigh the same, so that threshold 0 is fair. The scale is positive: where y_S
    says the opposite of the labels, only the bias is fitted, since turning a net's answer round on
    few samples is no calibration.

    `prior` weighs a pull towards the same scale and threshold as y itself, in y's standard
    deviations. It keeps the fit finite where few samples are told apart without error; Platt's soft
    targets do the same, and would bend labels that are soft already.
    """
    y_N, labels_N = y_N.detach().double().flatten().cpu(), labels_N.detach().double().cpu()
    share = float(labels_N.mean()) if len(labels_N) else math.nan
    if y_N.shape != labels_N.shape or not 0 < share < 1 or not bool(torch.isfinite(y_N).all()):
        raise TransplantError(
            f"a calibration needs finite outputs and labels of both sides, got {len(y_N)} outputs "
            f"and {len(labels_N)} labels of mean {share:g}; give samples of category and rest"
        )
    weight_N = problem.balanced(labels_N, share) if balanced else torch.ones_like(y_N)
    weight_N /= weight_N.sum()
    centre = float(y_N.mean())
    deviation = float(y_N.std(correction=0)) or 1.0
    z_N = (y_N - centre) / deviation
    start = torch.tensor([deviation, centre], dtype=torch.float64)
    slope, offset = _newton(z_N, labels_N, weight_N, start, prior, learn_scale=True)
    if slope <= 0:
        slope, offset = _newton(z_N, labels_N, weight_N, start, prior, learn_scale=False)
    return _capped(slope / deviation, offset - slope * centre / deviation)


def _newton(
    z_N: Tensor,
    labels_N: Tensor,
    weight_N: Tensor,
    start: Tensor,
    prior: float,
    *,
    learn_scale: bool,
) -> tuple[float, float]:
    """Minimise the weighted cross-entropy of σ(slope z + offset) plus the pull towards `start`."""
    inputs_N2 = torch.stack((z_N, torch.ones_like(z_N)), dim=1)
    free_2 = torch.tensor([float(learn_scale), 1.0], dtype=torch.float64)
    at = start.clone()

    def objective(point: Tensor) -> float:
        logits_N = inputs_N2 @ point
        entropy = F.binary_cross_entropy_with_logits(logits_N, labels_N, weight_N, reduction="sum")
        return float(entropy + 0.5 * prior * (point - start).square().sum())

    value = objective(at)
    for _ in range(_NEWTON_STEPS):
        p_N = torch.sigmoid(inputs_N2 @ at)
        slope_2 = inputs_N2.T @ (weight_N * (p_N - labels_N)) + prior * (at - start)
        curve_22 = inputs_N2.T @ ((weight_N * p_N * (1 - p_N))[:, None] * inputs_N2)
        curve_22 = curve_22 + prior * torch.eye(2, dtype=torch.float64)
        slope_2 = slope_2 * free_2
        curve_22 = curve_22 * free_2 * free_2[:, None] + torch.diag(1 - free_2)
        step_2 = torch.linalg.solve(curve_22, slope_2)
        size = 1.0
        # The problem is convex, so a short enough step always helps until it is solved.
        while size > _TOLERANCE and objective(at - size * step_2) > value:
            size /= 2
        if size <= _TOLERANCE:
            break
        at = at - size * step_2
        before, value = value, objective(at)
        if before - value < _TOLERANCE * max(1.0, abs(value)):
            break
    return float(at[0]), float(at[1])


def _capped(scale: float, bias: float) -> Calibration:
    if not (0 < scale <= MAX_CALIBRATION and abs(bias) <= MAX_CALIBRATION):
        raise TransplantError(
            f"the calibration would be {scale:g} · y + {bias:g}, beyond {MAX_CALIBRATION:g}; the "
            "student's output hardly changes from one image to the next: learn the adapter first"
        )
    return Calibration(scale=scale, bias=bias)
