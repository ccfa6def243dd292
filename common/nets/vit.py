"""Vision transformers whose tokens are a map (Dosovitskiy et al., 2021; Touvron et al., 2021).

Patches of 16 pixels are the places of a map, blocks take a map and give one, and the classifier
averages its places, so that features, adapters, shared samples and statistics are those of a
convolutional net; a 1×1 adapter is a linear map of each token. There is no class token: what the
published nets read off it, the average has to learn (it does as well: Beyer et al., 2022, "Better
plain ViT baselines").

Shapes: N batch, C channels of a token, T tokens, H/W height and width of a map, D channels a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nets.declaration import Layer, renamed
from rootstock.common.nets.fcn import PooledSegmenting

_BLOCKS = 12
_PATCH = 16
_PLACES = 14
"""Patches along a side of the published nets' images, of 224 pixels."""

_CLASS_TOKENS = (0, 1, 2)
"""None, one, and one more of the distilled nets."""

_EPS = 1e-6

_PUBLISHED = (
    (r"patch_embed\.proj\.", "patches.proj."),
    (r"pos_embed$", "patches.position"),
    (r"blocks\.(\d+)\.", "block{1+1}."),
    (r"norm\.", "norm."),
    (r"head\.", "fc."),
)


class Patches(nn.Module):
    """Patches of an image, and where they are: a learned number a channel and place."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, _PATCH, _PATCH)
        self.position = nn.Parameter(torch.zeros(1, width, _PLACES, _PLACES))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return (N, C, H/16, W/16); places of images of another size are interpolated."""
        x_NCHW: Tensor = self.proj(images_NCHW)
        position: Tensor = self.position
        if x_NCHW.shape[2:] != position.shape[2:]:
            position = F.interpolate(position, x_NCHW.shape[2:], mode="bicubic", antialias=True)
        return x_NCHW + position


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of a map."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        return super().forward(x_NCHW.movedim(1, -1)).movedim(-1, 1)


class Attention(nn.Module):
    """Self-attention of several heads over tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_NTC: Tensor) -> Tensor:
        """Return (N, T, C)."""
        count, tokens, width = x_NTC.shape
        qkv = self.qkv(x_NTC).reshape(count, tokens, 3, self.heads, width // self.heads)
        q_NHTD, k_NHTD, v_NHTD = qkv.permute(2, 0, 3, 1, 4).unbind()
        mixed_NHTD = F.scaled_dot_product_attention(q_NHTD, k_NHTD, v_NHTD)
        out: Tensor = self.proj(mixed_NHTD.transpose(1, 2).reshape(count, tokens, width))
        return out


class Mlp(nn.Module):
    """Two layers at each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x_NTC: Tensor) -> Tensor:
        """Return (N, T, C)."""
        out: Tensor = self.fc2(self.act(self.fc1(x_NTC)))
        return out


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), over the places of a map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, _EPS), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, _EPS), Mlp(width)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        x_NTC = x_NCHW.flatten(2).transpose(1, 2)
        x_NTC = x_NTC + self.attn(self.norm1(x_NTC))
        x_NTC = x_NTC + self.mlp(self.norm2(x_NTC))
        out: Tensor = x_NTC.transpose(1, 2).reshape(x_NCHW.shape)
        return out


class DeiTTiny(PooledSegmenting):
    """DeiT-tiny without its class token, to be split at any block."""

    split_points: ClassVar[tuple[str, ...]] = tuple(f"block{n}" for n in range(1, _BLOCKS + 1))
    signed: ClassVar[bool] = True
    width: ClassVar[int] = 192
    heads: ClassVar[int] = 3
    input_size: int = Field(default=224, ge=32, le=512, multiple_of=_PATCH)

    def layers(self, outputs: int) -> Sequence[Layer]:  # noqa: D102
        block = partial(TransformerBlock, self.width, self.heads)
        return [
            ("patches", partial(Patches, self.in_channels, self.width)),
            *((name, block) for name in self.split_points),
            ("norm", partial(MapNorm, self.width, _EPS)),
            ("avgpool", lambda: nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten),
            ("fc", lambda: nn.Linear(self.width, outputs)),
        ]

    def own_name(self, published: str) -> str:
        """Translate the names of the published weights, which timm's are as well."""
        return renamed(published, _PUBLISHED)

    def own_tensor(self, name: str, published: Tensor) -> Tensor:
        """Lay positions (1, T, C) out as a map; those of class tokens, the first, are left out."""
        patches = _PLACES * _PLACES
        tokens = published.shape[1] - patches if published.ndim == 3 else -1
        if name != "patches.position" or tokens not in _CLASS_TOKENS:
            return published  # its shape is then refused, by name
        return published[:, tokens:].transpose(1, 2).reshape(1, -1, _PLACES, _PLACES)


class DeiTSmall(DeiTTiny):
    """DeiT-small without its class token: twice the width and heads."""

    width: ClassVar[int] = 384
    heads: ClassVar[int] = 6
