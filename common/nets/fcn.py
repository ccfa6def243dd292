"""A classifier made fully convolutional: one score for every pixel (Long et al., 2015).

What a net computes at each size of its map is scored by a 1×1 convolution, and the scores of the
smaller map, upsampled, are added to those of the larger one.

Shapes: C channels, H/W height and width of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.branches import SkipFusion
from rootstock.common.nets.declaration import Layer, Segmenting, sequence
from rootstock.common.nets.spec import Shape

SCORES = ("score_fr", "skip")
"""Names of the convolutions that score the classes: no ReLU follows them."""


class PooledSegmenting(Segmenting):
    """An architecture whose classifier begins with a global pooling, "avgpool".

    What is below that takes maps of any size, so a g that segments is the same layers without it.
    """

    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return the layers above the split, the scores of every size of map fused.

        Sizes below the split are not: they are inside the category module.
        """
        layers = self.layers(outputs)
        names = [name for name, _ in layers]
        above, pooling = names.index(split) + 1, self.pooling(layers)
        with torch.device("meta"):  # shapes only
            image_CHW = torch.empty(1, self.in_channels, self.input_size, self.input_size)
            x_CHW = sequence(layers[:above]).eval()(image_CHW)
            levels = list(_levels(layers[above:pooling], x_CHW))
        return _scores(levels, self.input_size, outputs)

    def pooling(self, layers: Sequence[Layer]) -> int:
        """Return the number of the layer that pools."""
        return [name for name, _ in layers].index("avgpool")


class _Level(NamedTuple):
    """Layers whose maps are all of one size."""

    layers: list[Layer]
    shape: Shape


def _levels(layers: Sequence[Layer], x_NCHW: torch.Tensor) -> Iterator[_Level]:
    """Part layers by the size of their maps, x's own first, which may have none."""
    level = _Level([], _shape(x_NCHW))
    for layer in layers:
        x_NCHW = sequence([layer]).eval()(x_NCHW)
        shape = _shape(x_NCHW)
        if shape[1:] == level.shape[1:]:
            level = _Level([*level.layers, layer], shape)
        else:
            yield level
            level = _Level([layer], shape)
    yield level


def _shape(x_NCHW: torch.Tensor) -> Shape:
    _, channels, height, width = x_NCHW.shape
    return int(channels), int(height), int(width)


def _scores(levels: Sequence[_Level], side: int, outputs: int) -> list[Layer]:
    """Return the layers that score the classes, up to maps of an image's side."""
    layers: list[Layer] = [("score_fr", partial(nn.Conv2d, levels[-1].shape[0], outputs, 1))]
    for level, deeper in reversed(list(pairwise(levels))):
        deep = [*deeper.layers, *layers, *_upscores(outputs, level.shape[1], deeper.shape[1])]
        skip = partial(nn.Conv2d, level.shape[0], outputs, 1)
        # By its stride: names do not change with the images' size.
        layers = [(f"fuse{side // level.shape[1]}", partial(_fused, deep, skip))]
    return [*levels[0].layers, *layers, *_upscores(outputs, side, levels[0].shape[1])]


def _fused(deep: Sequence[Layer], skip: Callable[[], nn.Module]) -> nn.Module:
    return SkipFusion(sequence(deep), skip())


def _upscores(outputs: int, side: int, below: int) -> list[Layer]:
    factor, left = divmod(side, below)
    if left or (factor > 1 and factor % 2):
        raise SchemaError(
            f"maps of {below}×{below} cannot be brought to {side}×{side} by an even factor, so "
            "there is no task module that segments; choose another input_size or split"
        )
    return [(f"upscore{factor}", partial(upsampling, outputs, factor))] if factor > 1 else []


def upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Upsample by an even factor, bilinearly at the start, each class by itself."""
    kernel = 2 * factor
    layer = nn.ConvTranspose2d(
        channels, channels, kernel, stride=factor, padding=factor // 2, bias=False
    )
    ramp_K = 1 - (torch.arange(kernel) + 0.5 - factor).abs() / factor
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(channels):
            layer.weight[channel, channel] = ramp_K[:, None] * ramp_K
    return layer
