"""VGG's block: 3×3 convolutions that keep the size, each with a ReLU, then a 2×2 max-pool."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from common.nets.declaration import Layer


def vgg_block(
    block: int, in_channels: int, widths: Sequence[int], *, ceil_mode: bool = False
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
    """
    layers: list[Layer] = []
    for place, out_channels in enumerate(widths, start=1):
        layers += _conv(f"{block}_{place}", in_channels, out_channels)
        in_channels = out_channels
    layers.append((f"pool{block}", lambda: nn.MaxPool2d(2, ceil_mode=ceil_mode)))
    return layers


def _conv(name: str, in_channels: int, out_channels: int) -> list[Layer]:
    return [
        (f"conv{name}", lambda: nn.Conv2d(in_channels, out_channels, 3, padding=1)),
        (f"relu{name}", nn.ReLU),
    ]
