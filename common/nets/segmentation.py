"""Task modules that give a map: crops, skip fusion, and FCN-8s made of them.

A task module stays a sequence; where it branches, one layer holds both branches. `SkipFusion` in a
`SkipFusion` is all that FCN-8s needs:

    conv2_1 … pool3, fuse3, upscore8, crop
    fuse3 = deep (conv4_1 … pool4, fuse4, upscore4) + skip (1×1 scores of pool3)
    fuse4 = deep (conv5_1 … pool5, fc6 … score_fr, upscore2) + skip (1×1 scores of pool4)

Shapes: N batch, C channels of x = f(I), O outputs (classes), H/W height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import TransplantError


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
    """Build FCN-8s above pool1, as the paper's Experiment 3 splits it (Long et al., 2015).

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
    block2, block3, block4, block5 = widths
    with torch.random.fork_rng(devices=[]):
        below: OrderedDict[str, nn.Module] = OrderedDict()
        channels = _block(below, 2, in_channels, block2)
        channels3 = _block(below, 3, channels, block3)
        middle: OrderedDict[str, nn.Module] = OrderedDict()
        channels4 = _block(middle, 4, channels3, block4)
        deepest: OrderedDict[str, nn.Module] = OrderedDict()
        channels5 = _block(deepest, 5, channels4, block5)
        deepest["fc6"] = nn.Conv2d(channels5, hidden, kernel)
        deepest["relu6"], deepest["drop6"] = nn.ReLU(), nn.Dropout2d()
        deepest["fc7"] = nn.Conv2d(hidden, hidden, 1)
        deepest["relu7"], deepest["drop7"] = nn.ReLU(), nn.Dropout2d()
        deepest["score_fr"] = nn.Conv2d(hidden, outputs, 1)
        deepest["upscore2"] = _bilinear(outputs, 2)
        middle["fuse4"] = SkipFusion(
            nn.Sequential(deepest), nn.Conv2d(channels4, outputs, 1), at_pool4
        )
        middle["upscore4"] = _bilinear(outputs, 2)
        below["fuse3"] = SkipFusion(
            nn.Sequential(middle), nn.Conv2d(channels3, outputs, 1), at_pool3
        )
        below["upscore8"] = _bilinear(outputs, 8)
        below["crop"] = Crop(size_HW, at_end)
        return nn.Sequential(below)


def _block(
    layers: OrderedDict[str, nn.Module], block: int, channels: int, widths: Sequence[int]
) -> int:
    """Append a VGG block; return its channels. Pools round up, as Caffe's do."""
    for place, width in enumerate(widths, start=1):
        layers[f"conv{block}_{place}"] = nn.Conv2d(channels, width, 3, padding=1)
        layers[f"relu{block}_{place}"] = nn.ReLU()
        channels = width
    layers[f"pool{block}"] = nn.MaxPool2d(2, ceil_mode=True)
    return channels


def _bilinear(outputs: int, factor: int) -> nn.ConvTranspose2d:
    """Upsample by a factor, bilinearly, each class by itself."""
    kernel = 2 * factor
    layer = nn.ConvTranspose2d(outputs, outputs, kernel, stride=factor, bias=False)
    ramp_K = 1 - (torch.arange(kernel) + 0.5 - factor).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(outputs):
            layer.weight[channel, channel] = ramp_K[:, None] * ramp_K
    return layer
