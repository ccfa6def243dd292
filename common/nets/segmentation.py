"""Task modules that give a map: crops, skip fusion, and fully convolutional nets made of them.

A task module stays a sequence; where it branches, one layer holds both branches. `SkipFusion` in a
`SkipFusion` is all that FCN-8s needs:

    conv2_1 … pool3, fuse3, upscore8, crop
    fuse3 = deep (conv4_1 … pool4, fuse4, upscore4) + skip (1×1 scores of pool3)
    fuse4 = deep (conv5_1 … pool5, fc6 … score_fr, upscore2) + skip (1×1 scores of pool4)

FCN-8s as published pads the image by 100 pixels and crops what comes out. A category module that
serves a classification too does not pad, so above it every layer keeps maps aligned: fc6 pads by
half its kernel, upsampling by s makes exactly s pixels out of one, and nothing is left to crop.

Shapes: N batch, C channels of x = f(I), O outputs (classes), H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootstock.common.errors import TransplantError
from rootstock.common.nets.declaration import Layer, sequence
from rootstock.common.nets.vgg_block import vgg_block

SCORES = ("score_fr", "skip")
"""Names of the convolutions that score the classes: no ReLU follows them."""


class Crop(nn.Module):
    """Cut a window out of a map: from `offset` on, `size` (H, W) large."""

    def __init__(self, size_HW: tuple[int, int], offset: int) -> None:
        super().__init__()
        self.size_HW, self.offset = size_HW, offset

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, C, *size).

        Raises
        ------
        TransplantError
            If the map is too small.
        """
        return _cropped(x_NCHW, self.size_HW, self.offset)


class SkipFusion(nn.Module):
    """Sum of a deep branch and of a shallow one, cropped to its size (Long et al., 2015).

    y = deep(x) + crop(skip(x)).

    Parameters
    ----------
    deep
        Goes down and comes back up by transposed convolution.
    skip
        Scores x as it is.
    offset
        Where the crop begins in skip's map.
    """

    def __init__(self, deep: nn.Module, skip: nn.Module, offset: int = 0) -> None:
        super().__init__()
        self.deep, self.skip, self.offset = deep, skip, offset

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, O, H, W) of deep's size.

        Raises
        ------
        TransplantError
            If skip's map is too small.
        """
        deep: Tensor = self.deep(x_NCHW)
        height, width = deep.shape[2:]
        return deep + _cropped(self.skip(x_NCHW), (height, width), self.offset)


def _cropped(x_NCHW: Tensor, size_HW: tuple[int, int], offset: int) -> Tensor:
    if any(n < offset + size for n, size in zip(x_NCHW.shape[2:], size_HW, strict=True)):
        raise TransplantError(
            f"a crop of {size_HW} from {offset} on leaves the map of {tuple(x_NCHW.shape[2:])}; "
            "use larger images or a smaller offset"
        )
    height, width = size_HW
    return x_NCHW[:, :, offset : offset + height, offset : offset + width]


@dataclass(frozen=True)
class Fcn:
    """A VGG made fully convolutional (Long et al., 2015).

    Parameters
    ----------
    widths
        Of each block's convolutions, by the block's number.
    deepest
        Number of the deepest pool. The scores above it are fused with those of the two pools
        below it.
    hidden
        Widths of fc6, fc7, …, which are convolutions.
    kernel
        Of fc6; odd.
    outputs
        Classes.
    offsets
        None keeps maps aligned. Else as published: where the crops begin at the deeper and at the
        shallower of the fused pools.
    """

    widths: Mapping[int, Sequence[int]]
    deepest: int
    hidden: Sequence[int]
    kernel: int
    outputs: int
    offsets: tuple[int, int] | None = None

    def layers(self, split: int, channels: int) -> list[Layer]:
        """Return the layers above a pool with so many channels, up to the image's size.

        Pools below the split are not fused: they are inside the category module.
        """
        factor = 2 ** max(split, self.deepest - 2)
        return [
            *self._scores(split, channels),
            (f"upscore{factor}", lambda: self._upsampling(factor)),
        ]

    def _scores(self, pool: int, channels: int) -> list[Layer]:
        """Return what scores the classes from a pool on, at the next fused pool's size."""
        if pool == self.deepest:
            return self._deepest_scores(channels)
        widths = self.widths[pool + 1]
        above = [
            *vgg_block(pool + 1, channels, widths, ceil_mode=self.offsets is not None),
            *self._scores(pool + 1, widths[-1]),
        ]
        from_top = self.deepest - pool
        if from_top > 2:
            return above
        above.append((f"upscore{2**from_top}", lambda: self._upsampling(2)))
        offset = 0 if self.offsets is None else self.offsets[from_top - 1]

        def fused() -> nn.Module:
            return SkipFusion(sequence(above), nn.Conv2d(channels, self.outputs, 1), offset)

        return [(f"fuse{pool}", fused)]

    def _deepest_scores(self, channels: int) -> list[Layer]:
        layers: list[Layer] = []
        kernel, padding = self.kernel, self.kernel // 2 if self.offsets is None else 0
        for place, width in enumerate(self.hidden, start=6):
            layers += _fully_connected(place, channels, width, kernel, padding)
            channels, kernel, padding = width, 1, 0
        layers.append(("score_fr", lambda: nn.Conv2d(channels, self.outputs, 1)))
        return layers

    def _upsampling(self, factor: int) -> nn.ConvTranspose2d:
        return _bilinear(self.outputs, factor, factor // 2 if self.offsets is None else 0)


def fcn8s_task_module(
    in_channels: int,
    outputs: int,
    size_HW: tuple[int, int],
    *,
    widths: Sequence[Sequence[int]] = ((128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    hidden: int = 4096,
    kernel: int = 7,
    offsets: tuple[int, int, int] = (5, 9, 31),
) -> nn.Sequential:
    """Build FCN-8s as published, above pool1, as the paper's Experiment 3 splits it.

    Parameters
    ----------
    in_channels
        C of pool1; its first convolution pads by 100 pixels, as FCN-8s does, for these defaults.
    outputs
        Classes.
    size_HW
        Of the image, to which the scores are cropped.
    widths
        Of blocks 2 to 5.
    hidden, kernel
        Of fc6 and fc7, which are convolutions; fc6's kernel.
    offsets
        Of the crops at pool4, at pool3 and at the end; FCN-8s's follow from its padding of 100.

    Returns
    -------
    A sequence whose upsampling is bilinear and whose other values are torch's defaults; the global
    random state stays as it was.
    """
    at_pool4, at_pool3, at_end = offsets
    fcn = Fcn(
        dict(enumerate(widths, start=2)), 5, (hidden, hidden), kernel, outputs, (at_pool4, at_pool3)
    )
    crop: Layer = ("crop", lambda: Crop(size_HW, at_end))
    return sequence([*fcn.layers(1, in_channels), crop])


def _fully_connected(
    place: int, channels: int, width: int, kernel: int, padding: int
) -> list[Layer]:
    return [
        (f"fc{place}", lambda: nn.Conv2d(channels, width, kernel, padding=padding)),
        (f"relu{place}", nn.ReLU),
        (f"drop{place}", nn.Dropout2d),
    ]


def _bilinear(outputs: int, factor: int, padding: int) -> nn.ConvTranspose2d:
    """Upsample by a factor, bilinearly, each class by itself."""
    kernel = 2 * factor
    layer = nn.ConvTranspose2d(outputs, outputs, kernel, stride=factor, padding=padding, bias=False)
    ramp_K = 1 - (torch.arange(kernel) + 0.5 - factor).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(outputs):
            layer.weight[channel, channel] = ramp_K[:, None] * ramp_K
    return layer
