"""MobileNetV2 with torchvision's blocks as they are (Sandler et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from rootstock.common.nets.declaration import Layer, renamed
from rootstock.common.nets.fcn import PooledSegmenting

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, out-channels, blocks, stride of the first block (the paper's table 2)."""

_BLOCKS = sum(blocks for _, _, blocks, _ in _STAGES)


class MobileNetV2(PooledSegmenting):
    """MobileNetV2, layer by layer as torchvision's `mobilenet_v2`, to be split at any block.

    Its blocks end without a ReLU, so x = f(I) may be negative.
    """

    split_points: ClassVar[tuple[str, ...]] = tuple(f"block{n}" for n in range(1, _BLOCKS + 1))
    signed: ClassVar[bool] = True
    input_size: int = Field(default=224, ge=32, le=512, multiple_of=32)
    width: float = Field(default=1.0, ge=0.25, le=2.0)
    """Multiplies all channels."""
    output_stride: Literal[8, 32] = 32
    """Image pixels for one of the last map's. 8, for images of 32 to 96 pixels, leaves out the
    strides of the stem and of the second stage."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        first = 2 if self.output_stride == 32 else 1
        channels = _channels(32 * self.width)
        layers: list[Layer] = [
            ("stem", partial(_conv_norm_relu6, self.in_channels, channels, 3, first))
        ]
        for stage, (expansion, out, blocks, stride) in enumerate(_STAGES):
            out_channels = _channels(out * self.width)
            for place in range(blocks):
                step = (first if stage == 1 else stride) if place == 0 else 1
                build: Callable[[], nn.Module] = partial(
                    _inverted_residual, channels, out_channels, step, expansion
                )
                layers.append((f"block{len(layers)}", build))
                channels = out_channels
        last = _channels(1280 * max(1.0, self.width))
        return [
            *layers,
            ("head", partial(_conv_norm_relu6, channels, last, 1, 1)),
            ("avgpool", lambda: nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten),
            ("drop", lambda: nn.Dropout(0.2)),
            ("fc", lambda: nn.Linear(last, outputs)),
        ]

    def own_name(self, published: str) -> str:
        """Translate torchvision's names."""
        return renamed(published, _PUBLISHED)


_PUBLISHED = (
    (r"features\.0\.", "stem."),
    (r"features\.18\.", "head."),
    (r"features\.(\d+)\.", "block{1}."),
    (r"classifier\.1\.", "fc."),
)


def _channels(wanted: float) -> int:
    """Return the nearest multiple of 8, at most a tenth below what is wanted."""
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _conv_norm_relu6(channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
    from torchvision.ops.misc import Conv2dNormActivation  # takes a second; few callers need it

    layer: nn.Module = Conv2dNormActivation(
        channels, out_channels, kernel, stride, activation_layer=nn.ReLU6
    )
    return layer


def _inverted_residual(channels: int, out_channels: int, stride: int, expansion: int) -> nn.Module:
    from torchvision.models.mobilenetv2 import InvertedResidual

    block: nn.Module = InvertedResidual(channels, out_channels, stride, expansion)
    return block
