"""VGG: plain chains of 3×3 convolutions, ReLUs and max-pools (Simonyan and Zisserman, 2015).

For segmentation, the same blocks made fully convolutional (Long et al., 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from rootstock.common.nets.declaration import Layer, Segmenting
from rootstock.common.nets.segmentation import Fcn
from rootstock.common.nets.vgg_block import vgg_block

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
        """Return blocks and fully connected layers."""
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
        return _fcn_layers(
            split, self._widths(), hidden=(self._hidden(),), kernel=3, outputs=outputs
        )

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
        """Return blocks and fully connected layers."""
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

    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return FCN-8s's layers above the split, its maps aligned instead of cropped."""
        return _fcn_layers(split, _VGG16_WIDTHS, hidden=(4096, 4096), kernel=7, outputs=outputs)


def _blocks(
    in_channels: int, widths: Sequence[Sequence[int]], *, batch_norm: bool = False
) -> list[Layer]:
    layers: list[Layer] = []
    for block, block_widths in enumerate(widths, start=1):
        layers += vgg_block(block, in_channels, block_widths, batch_norm=batch_norm)
        in_channels = block_widths[-1]
    return layers


def _fcn_layers(
    split: str,
    widths: Sequence[Sequence[int]],
    *,
    hidden: Sequence[int],
    kernel: int,
    outputs: int,
) -> list[Layer]:
    """Return FCN-8s's counterpart of a VGG above a split."""
    by_number = dict(enumerate(widths, start=1))
    pool = int(split.removeprefix("pool"))
    fcn = Fcn(by_number, len(widths), hidden, kernel, outputs)
    return fcn.layers(pool, by_number[pool][-1])
