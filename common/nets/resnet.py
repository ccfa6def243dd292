"""ResNets with torchvision's blocks as they are (He et al., 2016).

A split point is a block: f ends with it. Every block ends in a ReLU, so x = f(I) is not negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from rootstock.common.nets.branches import PaddedShortcut
from rootstock.common.nets.declaration import Layer, renamed
from rootstock.common.nets.fcn import PooledSegmenting

_MAX_BLOCKS = 9
"""Blocks a stage: 9 is ResNet-56."""


def _places(blocks: Sequence[int]) -> tuple[str, ...]:
    """Return the names of a net's blocks, by how many each stage has."""
    return tuple(
        f"block{stage}_{place}"
        for stage, count in enumerate(blocks, start=1)
        for place in range(1, count + 1)
    )


class SmallResNet(PooledSegmenting):
    """A ResNet for 32 to 96 pixels, of 6n + 2 layers: ResNet-20 with 3 blocks, ResNet-56 with 9.

    He et al., 2016, section 4.2: a 3×3 stem, three stages of n basic blocks.
    """

    split_points: ClassVar[tuple[str, ...]] = _places([_MAX_BLOCKS] * 3)
    input_size: int = Field(default=32, ge=32, le=96, multiple_of=4)
    width: int = Field(default=16, ge=4, le=128)
    """Channels of the first stage; the others have twice and four times as many."""
    blocks: int = Field(default=3, ge=1, le=_MAX_BLOCKS)
    """n, blocks a stage."""
    shortcut: Literal["A", "B"] = "A"
    """Where the size changes: A pads with zeros and has no weights, B is a 1×1 convolution."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        return [
            *_stem(self.in_channels, self.width),
            *_stages(self.width, _three(self.width, self.blocks), self.shortcut),
            *_head(4 * self.width, outputs),
        ]


class WideResNet(PooledSegmenting):
    """A Wide ResNet for 32 to 96 pixels, of 6n + 4 convolutions: WRN-28 with 4 blocks.

    Zagoruyko and Komodakis, 2016, section 2: a stem of 16 channels and three stages of n basic
    blocks, `widen` times as wide as `small-resnet`'s. Their blocks normalise before each
    convolution; here they are He et al.'s, which normalise after it and end in a ReLU, as every
    other ResNet's here does.
    """

    split_points: ClassVar[tuple[str, ...]] = _places([_MAX_BLOCKS] * 3)
    input_size: int = Field(default=32, ge=32, le=96, multiple_of=4)
    widen: int = Field(default=4, ge=2, le=16)
    """k: the stages have 16k, 32k and 64k channels."""
    blocks: int = Field(default=4, ge=1, le=_MAX_BLOCKS)
    """n, blocks a stage."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        return [
            *_stem(self.in_channels, 16),
            *_stages(16, _three(16 * self.widen, self.blocks), "B"),
            *_head(64 * self.widen, outputs),
        ]


class _ImageNetResNet(PooledSegmenting):
    """What torchvision's ResNets have in common: a strided stem, a pooling, four stages."""

    input_size: int = Field(default=224, ge=32, le=512, multiple_of=32)
    blocks: ClassVar[tuple[int, ...]]
    """A stage."""
    bottleneck: ClassVar[bool] = False
    """Whether blocks are 1×1, 3×3 and 1×1 convolutions, the last four times as wide."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        stages = list(zip((64, 128, 256, 512), self.blocks, strict=True))
        return [
            ("conv1", lambda: nn.Conv2d(self.in_channels, 64, 7, 2, 3, bias=False)),
            ("bn1", lambda: nn.BatchNorm2d(64)),
            ("relu1", nn.ReLU),
            ("pool1", lambda: nn.MaxPool2d(3, 2, 1)),
            *_stages(64, stages, "B", bottleneck=self.bottleneck),
            *_head(512 * _widening(bottleneck=self.bottleneck), outputs),
        ]

    def own_name(self, published: str) -> str:
        """Translate torchvision's names."""
        return renamed(published, ((r"layer(\d)\.(\d+)\.", "block{1}_{2+1}."),))


class ResNet18(_ImageNetResNet):
    """ResNet-18, layer by layer as torchvision's `resnet18`."""

    blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    split_points: ClassVar[tuple[str, ...]] = _places(blocks)


class ResNet34(_ImageNetResNet):
    """ResNet-34, layer by layer as torchvision's `resnet34`."""

    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    split_points: ClassVar[tuple[str, ...]] = _places(blocks)


class ResNet50(_ImageNetResNet):
    """ResNet-50, layer by layer as torchvision's `resnet50`, with the stride in the 3×3."""

    blocks: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    split_points: ClassVar[tuple[str, ...]] = _places(blocks)
    bottleneck: ClassVar[bool] = True


def _stem(in_channels: int, channels: int) -> list[Layer]:
    return [
        ("conv1", lambda: nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)),
        ("bn1", lambda: nn.BatchNorm2d(channels)),
        ("relu1", nn.ReLU),
    ]


def _three(width: int, blocks: int) -> list[tuple[int, int]]:
    return [(factor * width, blocks) for factor in (1, 2, 4)]


def _stages(
    channels: int,
    stages: Sequence[tuple[int, int]],
    shortcut: Literal["A", "B"],
    *,
    bottleneck: bool = False,
) -> list[Layer]:
    """Return blocks: (width, blocks) per stage, each but the first halving the map."""
    layers: list[Layer] = []
    for stage, (width, blocks) in enumerate(stages, start=1):
        for place in range(1, blocks + 1):
            stride = 2 if stage > 1 and place == 1 else 1
            build: Callable[[], nn.Module] = partial(
                _block, channels, width, stride, shortcut, bottleneck=bottleneck
            )
            layers.append((f"block{stage}_{place}", build))
            channels = width * _widening(bottleneck=bottleneck)
    return layers


def _widening(*, bottleneck: bool) -> int:
    return 4 if bottleneck else 1


def _block(
    channels: int, width: int, stride: int, shortcut: Literal["A", "B"], *, bottleneck: bool
) -> nn.Module:
    from torchvision.models import resnet  # takes a second, which few callers need

    out_channels = width * _widening(bottleneck=bottleneck)
    downsample: nn.Module | None = None
    if stride > 1 or channels != out_channels:
        downsample = (
            PaddedShortcut(channels, out_channels, stride)
            if shortcut == "A"
            else nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )
    kind = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    block: nn.Module = kind(channels, width, stride, downsample)
    return block


def _head(channels: int, outputs: int) -> list[Layer]:
    return [
        ("avgpool", lambda: nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten),
        ("fc", lambda: nn.Linear(channels, outputs)),
    ]
