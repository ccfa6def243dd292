"""VGG's block: 3×3 convolutions that keep the size, each with a ReLU, then a 2×2 max-pool."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from rootstock.common.nets.declaration import Layer


def vgg_block(
    block: int,
    in_channels: int,
    widths: Sequence[int],
    *,
    ceil_mode: bool = False,
    batch_norm: bool = False,
) -> list[Layer]:
    """Return a block's layers, named by its number: conv1_1, relu1_1, conv1_2, …, pool1.

    Parameters
    ----------
    block
        Counts from 1.
    in_channels, widths
        Channels below, and out-channels of each convolution.
    ceil_mode
        Whether the pool rounds an odd size up, as Caffe's do.
    batch_norm
        Whether BatchNorm (bn1_1, …) follows each convolution.
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
    layers.append((f"pool{block}", lambda: nn.MaxPool2d(2, ceil_mode=ceil_mode)))
    return layers
