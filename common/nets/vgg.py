"""VGG: plain chains of 3×3 convolutions, ReLUs and max-pools (Simonyan and Zisserman, 2015).

For segmentation, the same blocks made fully convolutional (Long et al., 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pydantic import Field
from torch import nn

from rootstock.common.nets.branches import SkipFusion
from rootstock.common.nets.declaration import Layer, Segmenting, renamed, sequence
from rootstock.common.nets.fcn import upsampling

_VGG16_WIDTHS = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]


class SmallVgg(Segmenting):
    """A VGG for 32 to 96 pixels and a few hundred images."""

    split_points: ClassVar[tuple[str, ...]] = ("pool1", "pool2", "pool3", "pool4")
    input_size: int = Field(default=32, ge=32, le=96, multiple_of=16)
    width: int = Field(default=16, ge=4, le=128)
    blocks: int = Field(default=3, ge=3, le=4)
    hidden: int | None = Field(default=None, ge=4, le=4096)
    """Units of fc6; None is 8 × width."""
    batch_norm: bool = False
    """Whether BatchNorm follows each convolution; a segmentation's task module has none."""

    def layers(self, outputs: int) -> Sequence[Layer]:
        side = self.input_size >> self.blocks
        return [
            *_blocks(self.in_channels, self._widths(), batch_norm=self.batch_norm),
            ("flatten", nn.Flatten),
            ("fc6", lambda: nn.Linear(4 * self.width * side * side, self._hidden())),
            ("relu6", nn.ReLU),
            ("drop6", nn.Dropout),
            ("fc7", lambda: nn.Linear(self._hidden(), outputs)),
        ]

    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return the blocks above the split, fc6 as a 3×3 convolution, two fused pools."""
        return Fcn(self._widths(), (self._hidden(),), kernel=3, outputs=outputs).layers(split)

    def _widths(self) -> list[list[int]]:
        width = self.width
        return [[w, w] for w in (width, 2 * width, 4 * width, 4 * width)[: self.blocks]]

    def _hidden(self) -> int:
        return 8 * self.width if self.hidden is None else self.hidden


class Vgg16(Segmenting):
    """VGG-16, layer by layer as torchvision's `vgg16`, with the paper's names."""

    split_points: ClassVar[tuple[str, ...]] = ("pool1", "pool2", "pool3", "pool4", "pool5")
    input_size: int = Field(default=224, ge=32, le=512, multiple_of=32)

    def layers(self, outputs: int) -> Sequence[Layer]:
        return [
            *_blocks(self.in_channels, _VGG16_WIDTHS),
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

    def own_name(self, published: str) -> str:
        """Translate torchvision's names, which number all layers."""
        return renamed(published, _PUBLISHED)

    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return FCN-8s's layers above the split, its maps aligned instead of cropped."""
        return Fcn(_VGG16_WIDTHS, (4096, 4096), kernel=7, outputs=outputs).layers(split)


def _published() -> list[tuple[str, str]]:
    names = [(rf"classifier\.{3 * n}\.", f"fc{n + 6}.") for n in range(3)]
    place = 0
    for block, widths in enumerate(_VGG16_WIDTHS, start=1):
        for layer in range(1, len(widths) + 1):
            names.append((rf"features\.{place}\.", f"conv{block}_{layer}."))
            place += 2  # its ReLU
        place += 1  # the pooling
    return names


_PUBLISHED = _published()


@dataclass(frozen=True)
class Fcn:
    """A VGG made fully convolutional (Long et al., 2015), as FCN-8s.

        conv2_1 … pool3, fuse3, upscore8
        fuse3 = deep (conv4_1 … pool4, fuse4, upscore4) + skip (1×1 scores of pool3)
        fuse4 = deep (conv5_1 … pool5, fc6 … score_fr, upscore2) + skip (1×1 scores of pool4)

    The published net pads the image by 100 pixels and crops what comes out. A category module that
    serves a classification too does not pad, so above it every layer keeps maps aligned: fc6 pads
    by half its kernel, and upsampling by s makes exactly s pixels out of one.
    """

    widths: Sequence[Sequence[int]]
    """Out-channels of each block's convolutions, lowest block first. The scores above the deepest
    pool are fused with those of the two pools below it."""
    hidden: Sequence[int]
    """Widths of fc6, fc7, …, which are convolutions."""
    kernel: int
    """Side of fc6's kernel; odd."""
    outputs: int

    def layers(self, split: str) -> list[Layer]:
        """Return the layers above a pool, up to the image's size.

        Pools below the split are not fused: they are inside the category module.
        """
        pool = int(split.removeprefix("pool"))
        factor = 2 ** max(pool, len(self.widths) - 2)
        return [*self._scores(pool), (f"upscore{factor}", lambda: upsampling(self.outputs, factor))]

    def _scores(self, pool: int) -> list[Layer]:
        """Return what scores the classes from a pool on, at the next fused pool's size."""
        channels = self.widths[pool - 1][-1]
        from_top = len(self.widths) - pool
        if from_top == 0:
            return self._deepest_scores(channels)
        above = [*vgg_block(pool + 1, channels, self.widths[pool]), *self._scores(pool + 1)]
        if from_top > 2:
            return above
        above.append((f"upscore{2**from_top}", lambda: upsampling(self.outputs, 2)))

        def fused() -> nn.Module:
            return SkipFusion(sequence(above), nn.Conv2d(channels, self.outputs, 1))

        return [(f"fuse{pool}", fused)]

    def _deepest_scores(self, channels: int) -> list[Layer]:
        layers: list[Layer] = []
        kernel = self.kernel
        for number, width in enumerate(self.hidden, start=6):
            layers += [
                (f"fc{number}", partial(nn.Conv2d, channels, width, kernel, padding=kernel // 2)),
                (f"relu{number}", nn.ReLU),
                (f"drop{number}", nn.Dropout2d),
            ]
            channels, kernel = width, 1
        layers.append(("score_fr", lambda: nn.Conv2d(channels, self.outputs, 1)))
        return layers


def vgg_block(
    block: int, in_channels: int, widths: Sequence[int], *, batch_norm: bool = False
) -> list[Layer]:
    """Return a block's layers, named by its number, from 1: conv1_1, relu1_1, conv1_2, …, pool1.

    BatchNorm (bn1_1, …) follows each convolution if it is wanted.
    """
    layers: list[Layer] = []
    for place, out_channels in enumerate(widths, start=1):
        name = f"{block}_{place}"
        layers += [
            (f"conv{name}", partial(nn.Conv2d, in_channels, out_channels, 3, padding=1)),
            *([(f"bn{name}", partial(nn.BatchNorm2d, out_channels))] if batch_norm else []),
            (f"relu{name}", nn.ReLU),
        ]
        in_channels = out_channels
    layers.append((f"pool{block}", partial(nn.MaxPool2d, 2)))
    return layers


def _blocks(
    in_channels: int, widths: Sequence[Sequence[int]], *, batch_norm: bool = False
) -> list[Layer]:
    layers: list[Layer] = []
    for block, block_widths in enumerate(widths, start=1):
        layers += vgg_block(block, in_channels, block_widths, batch_norm=batch_norm)
        in_channels = block_widths[-1]
    return layers
