"""VGG: plain chains of 3×3 convolutions, ReLUs and max-pools (Simonyan and Zisserman, 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from common.nets.declaration import Architecture, Layer


class SmallVgg(Architecture):
    """A VGG for 32 to 96 pixels and a few hundred images."""

    split_points: ClassVar[tuple[str, ...]] = ("pool1", "pool2", "pool3", "pool4")
    input_size: int = Field(default=32, ge=32, le=96, multiple_of=16)
    width: int = Field(default=16, ge=4, le=128)
    blocks: int = Field(default=3, ge=3, le=4)
    hidden: int | None = Field(default=None, ge=4, le=4096)
    """Units of fc6; None is 8 × width."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return blocks and fully connected layers."""
        width = self.width
        widths = [[w, w] for w in (width, 2 * width, 4 * width, 4 * width)[: self.blocks]]
        side = self.input_size >> self.blocks
        hidden = 8 * width if self.hidden is None else self.hidden
        return [
            *_blocks(self.in_channels, widths),
            ("flatten", nn.Flatten),
            ("fc6", lambda: nn.Linear(4 * width * side * side, hidden)),
            ("relu6", nn.ReLU),
            ("drop6", nn.Dropout),
            ("fc7", lambda: nn.Linear(hidden, outputs)),
        ]


class Vgg16(Architecture):
    """VGG-16, layer by layer as torchvision's `vgg16`, with the paper's names."""

    split_points: ClassVar[tuple[str, ...]] = ("pool1", "pool2", "pool3", "pool4", "pool5")
    input_size: int = Field(default=224, ge=32, le=512, multiple_of=32)

    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return blocks and fully connected layers."""
        return [
            *_blocks(self.in_channels, [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]),
            ("avgpool", lambda: nn.AdaptiveAvgPool2d((7, 7))),
            ("flatten", nn.Flatten),
            ("fc6", lambda: nn.Linear(512 * 7 * 7, 4096)),
            ("relu6", nn.ReLU),
            ("drop6", nn.Dropout),
            ("fc7", lambda: nn.Linear(4096, 4096)),
            ("relu7", nn.ReLU),
            ("drop7", nn.Dropout),
            ("fc8", lambda: nn.Linear(4096, outputs)),
        ]


def _conv(name: str, in_channels: int, out_channels: int) -> list[Layer]:
    """Return a 3×3 convolution that keeps the size, and its ReLU: conv1_1, relu1_1."""
    return [
        (f"conv{name}", lambda: nn.Conv2d(in_channels, out_channels, 3, padding=1)),
        (f"relu{name}", nn.ReLU),
    ]


def _blocks(in_channels: int, widths: Sequence[Sequence[int]]) -> list[Layer]:
    """Return VGG's blocks: per block its convolutions, each with a ReLU, then a 2×2 max-pool."""
    layers: list[Layer] = []
    for block, block_widths in enumerate(widths, start=1):
        for place, out_channels in enumerate(block_widths, start=1):
            layers += _conv(f"{block}_{place}", in_channels, out_channels)
            in_channels = out_channels
        layers.append((f"pool{block}", lambda: nn.MaxPool2d(2)))
    return layers
