"""Distances of r_θ of a target's map from source maps, without making r_θ of it.

All-to-all matching on maps takes several times as long as the net itself: each pair has a map of
the source's channels at the target's size, which is written, subtracted, squared and averaged. But
r_θ is linear, so the square can be multiplied out. With R the weights and bias of r_θ, and T and S
as matrices over pixels, T with a row of ones for the bias,

    HW · d_c = R_c (T Tᵀ) R_cᵀ − 2 R_c (T Sᵀ)_c + Σ S_c²

A smaller source map is enlarged bilinearly, which is linear as well, A S Bᵀ: instead of enlarging
S, T is taken down to its size, T · (A S Bᵀ) = (Aᵀ T B) · S. What is lost is digits where r_θ(T)
comes very near S: d is exact to about 1e-6 of the mean of S², in float32.

Shapes: N images, T and S channels of a target's and a source's map, U = T + 1, H/W height and width
of the target's map, P = HW, h/w of the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

Size = tuple[int, int]
"""(H, W)."""


class Wanted(NamedTuple):
    """The source maps that one target layer's map is compared with: those of all its pairs."""

    maps: list[Tensor]
    """(N, S, h, w) a pair; one that is smaller than the target's stands for its enlargement."""
    square_NS: Tensor
    """Mean over pixels of the squares of all of them, enlarged."""


def wanted(maps: Sequence[Tensor], channels: int, size: Size) -> Wanted:
    """Prepare a target layer's source maps (N, S, h, w), once for all passes over the same images.

    `channels` and `size` are T and (H, W) of the target's map.
    """
    kept, squares = [], []
    for map_NShw in maps:
        if _small(map_NShw, channels, size):
            a_Hh, b_Ww = _enlargement(map_NShw, size)
            own_NShw = (a_Hh.mT @ a_Hh) @ map_NShw @ (b_Ww.mT @ b_Ww)
            squares.append((own_NShw * map_NShw).sum((2, 3)) / (size[0] * size[1]))
            kept.append(map_NShw)
        else:
            kept.append(resized(map_NShw, size))
            squares.append(kept[-1].square().mean((2, 3)))
    return Wanted(kept, torch.cat(squares, 1))


def distances(map_NTHW: Tensor, regressor: nn.Conv2d, held: Wanted) -> Tensor:
    """Return the mean over pixels of (r_θ(T) − S)², (N, S) of all pairs side by side.

    `regressor` is r_θ of all pairs side by side: 1×1, with bias.
    """
    channels, pixels = map_NTHW.shape[1], map_NTHW.shape[2:].numel()
    if not _multiplied_out(channels, pixels):
        # Here the products of channels would be the larger matrices.
        maps_NSHW = torch.cat(held.maps, 1)
        projected_NSHW: Tensor = regressor(map_NTHW)
        return (projected_NSHW - maps_NSHW).square().mean((2, 3))
    assert regressor.bias is not None  # noqa: S101  # r_θ has one
    r_SU = torch.cat((regressor.weight.flatten(1), regressor.bias[:, None]), 1)
    # Channels last, as nets and their maps are in training: no copy, and gradients come back so.
    t_NHWT = map_NTHW.movedim(1, 3)
    t_NHWU = torch.cat((t_NHWT, torch.ones_like(t_NHWT[..., :1])), 3)
    t_NPU = t_NHWU.flatten(1, 2)
    crosses = []
    for map_NShw in held.maps:
        taken_NpU = t_NPU
        if map_NShw.shape[2:] != map_NTHW.shape[2:]:
            a_Hh, b_Ww = _enlargement(map_NShw, (map_NTHW.shape[2], map_NTHW.shape[3]))
            rows_NhWU = (a_Hh.mT @ t_NHWU.flatten(2)).view(len(t_NHWU), -1, *t_NHWU.shape[2:])
            taken_NpU = (b_Ww.mT @ rows_NhWU).flatten(1, 2)
        crosses.append(map_NShw.movedim(1, 3).flatten(1, 2).mT @ taken_NpU)
    own_NSU = r_SU @ (t_NPU.mT @ t_NPU)
    cross_NSU = torch.cat(crosses, 1)
    return (r_SU * (own_NSU - 2 * cross_NSU)).sum(2) / pixels + held.square_NS


def resized(map_NShw: Tensor, size: Size) -> Tensor:
    """Resize a source's map to a target's, bilinearly."""
    if map_NShw.shape[2:] == size:
        return map_NShw
    return F.interpolate(map_NShw, size, mode="bilinear", align_corners=False)


def _multiplied_out(channels: int, pixels: int) -> bool:
    return pixels > channels


def _small(map_NShw: Tensor, channels: int, size: Size) -> bool:
    height, width = map_NShw.shape[2:]
    enlarged = height <= size[0] and width <= size[1] and (height, width) != size
    return enlarged and _multiplied_out(channels, size[0] * size[1])


def _enlargement(map_NShw: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Return A (H, h) and B (W, w) of bilinear enlargement."""
    matrices = []
    for small, large in zip(map_NShw.shape[2:], size, strict=True):
        one_1hh = torch.eye(small, dtype=map_NShw.dtype, device=map_NShw.device)[None]
        matrices.append(F.interpolate(one_1hh, large, mode="linear", align_corners=False)[0].mT)
    return matrices[0], matrices[1]
