"""The source of a dream: modules, and the moments that their layers' outputs are to have.

Shapes: N images, C channels of a layer's output, H/W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.training import watched

_FLOOR = 1e-2
"""Least variance of a channel, in units of its layer's mean: dead ones would weigh infinitely."""


@dataclass(frozen=True)
class DreamSource:
    """Frozen f and g_T, and the moments that images dreamed from them are to have.

    `input_shape` is (C, H, W) of images. Statistics are `mean/<layer>` and `variance/<layer>` (C)
    of layers of f and g_T, as shipped; others are not looked at, and at least one layer needs both.
    """

    category_module: nn.Sequential
    teacher_task: nn.Sequential
    input_shape: Shape
    statistics: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for module in (self.category_module, self.teacher_task):
            module.eval().requires_grad_(False)
        for name in self.layers():
            mean_C, variance_C = self.wanted(name)
            total = float(variance_C.double().sum())
            if not (0 < total < math.inf and bool(torch.isfinite(mean_C).all())):
                raise TransplantError(
                    f"statistics of layer '{name}' have variances that sum to {total:g}, or means "
                    "that are not finite; a layer that never changes says nothing of its images"
                )
        if not self.layers():
            raise TransplantError(
                "there is no layer whose mean and variance were both shipped, so there is nothing "
                "to dream from; ask the lab to switch channel means and variances on"
            )

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose mean and variance were shipped, by name."""
        known = dict(self.teacher_task.named_modules())
        known |= self.category_module.named_modules()  # of layers of one name, labs measure f's
        found: dict[str, nn.Module] = {}
        for key in self.statistics:
            kind, _, name = key.partition("/")
            if kind != "mean" or f"variance/{name}" not in self.statistics:
                continue
            if name not in known:
                raise TransplantError(
                    f"statistics name layer '{name}', which neither f nor g has; "
                    "they belong to another architecture or split"
                )
            found[name] = known[name]
        return found

    def wanted(self, name: str) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C) that a layer is to have."""
        return self.statistics[f"mean/{name}"], self.statistics[f"variance/{name}"]


@contextmanager
def moments(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect mean and variance (C) of layers' outputs over images and places."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def into(name: str, output_NCHW: Tensor) -> None:
        variance_C, mean_C = torch.var_mean(output_NCHW, (0, 2, 3), correction=0)
        found[name] = (mean_C, variance_C)

    with watched(layers, into):
        yield found


def distance(name: str, found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """Return how far a layer's moments are from those wanted, in units of the wanted variance."""
    if any(f.shape != w.shape for f, w in zip(found, wanted, strict=True)):
        raise TransplantError(
            f"statistics of layer '{name}' have shape {tuple(wanted[0].shape)} and it has "
            f"{found[0].shape[0]} channels; they belong to another architecture"
        )
    (mean_C, variance_C), (target_C, target_variance_C) = found, wanted
    unit_C = target_variance_C + _FLOOR * target_variance_C.mean() + torch.finfo(mean_C.dtype).tiny
    deviation_C = (variance_C + 1e-12).sqrt() - target_variance_C.sqrt()
    return (((mean_C - target_C).square() + deviation_C.square()) / unit_C).mean()
