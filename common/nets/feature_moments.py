"""Features drawn from the moments that a lab ships: what a teacher answers where no image is.

A lab ships, with its weights, the mean of x = f(I) over its images and x's covariance, as that of
channels, of rows and of columns: a Kronecker product of the three. Drawn from the normal of these
moments, features need no image, no pass through f and no step of a dream, and the teacher's answers
to them spread as they do on the lab's own images. What a channel's mean and variance alone leave
out, that channels go together, is most of it (EfficientNet-Lite0 at 128 pixels, VOC's cat onto dog,
one seed, split block11, error of a 1×1 adapter that imitates 3,000 draws: 17.1%, with variances
alone 48.2%; teacher 8.8%, no adapter 62.3%).

Shapes: N images or draws, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape

MEAN = "feature_mean"
COVARIANCES = ("feature_channels", "feature_rows", "feature_columns")
"""Names of the shipped statistics. The first covariance has x's variance, the others a mean
diagonal of 1."""
_LEAST = 1e-12
"""Share of the mean square that a variance has at least: below it is float64's rounding."""
_DAMPING = 1e-4
"""Added to a covariance's diagonal, of its mean: measured on few images, one may be singular."""


class MomentSums:
    """Sums over features that are seen a part at a time, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_CHW = torch.zeros(())
        self._products = [torch.zeros(())] * len(COVARIANCES)

    def add(self, x_NCHW: Tensor) -> None:
        """Add the features of the next images."""
        x_NCHW = x_NCHW.detach().double().cpu()
        self._count += len(x_NCHW)
        self._sum_CHW = self._sum_CHW + x_NCHW.sum(0)
        self._products = [
            total + added for total, added in zip(self._products, _products(x_NCHW), strict=True)
        ]

    def moments(self) -> dict[str, Tensor]:
        """Return the moments by the names that they are shipped under, float32.

        Covariances of features that never change are zero.
        """
        mean_CHW = self._sum_CHW / self._count
        channels_CC, *sides = (
            (total / self._count - own) * (len(own) / mean_CHW.numel())
            for total, own in zip(self._products, _products(mean_CHW[None]), strict=True)
        )
        variance = channels_CC.diagonal().mean()
        if not variance > _LEAST * (variance + mean_CHW.square().mean()):
            channels_CC, *sides = (torch.zeros_like(each) for each in (channels_CC, *sides))
            variance = torch.ones(())
        covariances = [_rounded(each) for each in (channels_CC, *(s / variance for s in sides))]
        measured = (mean_CHW, *covariances)
        return {
            name: values.float()
            for name, values in zip((MEAN, *COVARIANCES), measured, strict=True)
        }


@dataclass(frozen=True)
class FeatureMoments:
    """The normal distribution that features are drawn from."""

    mean_CHW: Tensor
    factors: tuple[Tensor, ...]
    """L of L Lᵀ = a covariance: (C, C), (H, H), (W, W)."""
    signed: bool
    """Whether x may be negative; else draws are cut at 0."""

    @classmethod
    def shipped(cls, statistics: Mapping[str, Tensor], shape: Shape, *, signed: bool) -> Self:
        """Return what a lab shipped of features of `shape`.

        TransplantError if it kept one of them, or they are of other features or no covariances.
        """
        for name, expected in layout(shape).items():
            if name not in statistics:
                raise TransplantError(
                    f"statistic '{name}' was not shipped, so no features can be drawn; ask the lab "
                    "to switch feature moments on"
                )
            given = tuple(statistics[name].shape)
            if given != expected:
                raise TransplantError(
                    f"statistic '{name}' has shape {given}, features of "
                    f"{'×'.join(map(str, shape))} have {expected}; it belongs to another net"
                )
        factors = [_factor(name, statistics[name]) for name in COVARIANCES]
        # The first has x's variance, whatever the others were multiplied by.
        factors[1:] = [each / each.square().sum(1).mean().sqrt() for each in factors[1:]]
        return cls(statistics[MEAN].float().cpu(), tuple(factors), signed)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw features (N, C, H, W), float32, on the CPU.

        The generator, on the CPU, is the only source of randomness.
        """
        drawn_NCHW = torch.randn(count, *self.mean_CHW.shape, generator=generator)
        for side, factor_DD in enumerate(self.factors, start=1):
            drawn_NCHW = torch.tensordot(drawn_NCHW, factor_DD, ([side], [1])).movedim(-1, side)
        drawn_NCHW = (self.mean_CHW + drawn_NCHW).contiguous()
        return drawn_NCHW if self.signed else drawn_NCHW.clamp_min(0)


def layout(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the statistics of features of `shape`, by name."""
    sides = [(side, side) for side in shape]
    return {MEAN: shape} | dict(zip(COVARIANCES, sides, strict=True))


def _products(x_NCHW: Tensor) -> list[Tensor]:
    """Return Σ x xᵀ of channels, rows and columns over everything else."""
    return [
        torch.einsum(sum_, x_NCHW, x_NCHW)
        for sum_ in ("nchw,ndhw->cd", "nchw,nciw->hi", "nchw,nchj->wj")
    ]


def _rounded(covariance_DD: Tensor) -> Tensor:
    """Return a covariance without what rounding left: no variance is below zero."""
    diagonal_D = covariance_DD.diagonal()
    return covariance_DD + torch.diag(diagonal_D.clamp_min(0) - diagonal_D)


def _factor(name: str, covariance_DD: Tensor) -> Tensor:
    """Return L of L Lᵀ = a covariance, damped a little."""
    matrix_DD = covariance_DD.double().cpu()
    matrix_DD = (matrix_DD + matrix_DD.T) / 2
    size = float(matrix_DD.diagonal().mean())
    if not 0 < size < float("inf"):
        raise TransplantError(
            f"statistic '{name}' has a mean variance of {size:g}; features that never change, or "
            "are not finite, cannot be drawn"
        )
    damped_DD = matrix_DD + _DAMPING * size * torch.eye(len(matrix_DD)).to(matrix_DD)
    factor_DD, failed = torch.linalg.cholesky_ex(damped_DD)
    if int(failed):
        raise TransplantError(
            f"statistic '{name}' is no covariance: it has an eigenvalue below zero; measure the net"
            " that is shipped"
        )
    lower_DD: Tensor = factor_DD.float()
    return lower_DD
