"""EfficientNet-Lite0: MobileNetV2's blocks in EfficientNet-B0's sizes, without gates.

Tan and Le, 2019, table 1; "Lite" leaves squeeze-and-excitation out and takes ReLU6 for SiLU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from rootstock.common.nets.declaration import Layer, renamed
from rootstock.common.nets.fcn import PooledSegmenting

_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, out-channels, blocks, stride of the first block, kernel."""

_BLOCKS = sum(blocks for _, _, blocks, _, _ in _STAGES)
_STEM, _HEAD = 32, 1280

_PUBLISHED = (
    (r"_conv_stem\.", "stem.conv."),
    (r"_bn0\.", "stem.bn."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"block{1+1}.conv.expand."),
    (r"_blocks\.(\d+)\._bn0\.", r"block{1+1}.conv.expand_bn."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"block{1+1}.conv.depthwise."),
    (r"_blocks\.(\d+)\._bn1\.", r"block{1+1}.conv.depthwise_bn."),
    (r"_blocks\.(\d+)\._project_conv\.", r"block{1+1}.conv.project."),
    (r"_blocks\.(\d+)\._bn2\.", r"block{1+1}.conv.project_bn."),
    (r"_conv_head\.", "head.conv."),
    (r"_bn1\.", "head.bn."),
    (r"_fc\.", "fc."),
)


class MobileBlock(nn.Module):
    """conv(x), plus x where the size stays: expand, a convolution a channel, project."""

    def __init__(self, conv: nn.Sequential, *, use_res_connect: bool) -> None:
        super().__init__()
        self.conv = conv
        self.use_res_connect = use_res_connect

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return (N, O, H, W), halved where the block has a stride."""
        out: Tensor = self.conv(x_NCHW)
        return x_NCHW + out if self.use_res_connect else out


class EfficientNetLite0(PooledSegmenting):
    """EfficientNet-Lite0, to be split at any block.

    Its blocks end without a ReLU, so x = f(I) may be negative. Strided convolutions pad as the
    published weights were trained, one more below and to the right.
    """

    split_points: ClassVar[tuple[str, ...]] = tuple(f"block{n}" for n in range(1, _BLOCKS + 1))
    signed: ClassVar[bool] = True
    input_size: int = Field(default=224, ge=32, le=512, multiple_of=32)

    def layers(self, outputs: int) -> Sequence[Layer]:  # noqa: D102
        layers: list[Layer] = [("stem", partial(_stem, self.in_channels))]
        channels = _STEM
        for expansion, out_channels, blocks, stride, kernel in _STAGES:
            for place in range(blocks):
                build: Callable[[], nn.Module] = partial(
                    _block, channels, out_channels, stride if place == 0 else 1, expansion, kernel
                )
                layers.append((f"block{len(layers)}", build))
                channels = out_channels
        return [
            *layers,
            ("head", partial(_head, channels)),
            ("avgpool", lambda: nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten),
            ("drop", lambda: nn.Dropout(0.2)),
            ("fc", lambda: nn.Linear(_HEAD, outputs)),
        ]

    def own_name(self, published: str) -> str:
        """Translate the names of the PyTorch port of the published weights."""
        return renamed(published, _PUBLISHED)


def _stem(in_channels: int) -> nn.Sequential:
    convolved = _convolution("conv", in_channels, _STEM, 3, 2)
    return nn.Sequential(OrderedDict([*convolved, ("bn", _norm(_STEM)), ("relu", nn.ReLU6())]))


def _head(channels: int) -> nn.Sequential:
    convolved = _convolution("conv", channels, _HEAD, 1, 1)
    return nn.Sequential(OrderedDict([*convolved, ("bn", _norm(_HEAD)), ("relu", nn.ReLU6())]))


def _block(
    channels: int, out_channels: int, stride: int, expansion: int, kernel: int
) -> MobileBlock:
    hidden = expansion * channels
    layers: list[tuple[str, nn.Module]] = []
    if expansion > 1:
        layers += _convolution("expand", channels, hidden, 1, 1)
        layers += [("expand_bn", _norm(hidden)), ("expand_relu", nn.ReLU6())]
    layers += _convolution("depthwise", hidden, hidden, kernel, stride, groups=hidden)
    layers += [("depthwise_bn", _norm(hidden)), ("depthwise_relu", nn.ReLU6())]
    layers += _convolution("project", hidden, out_channels, 1, 1)
    layers += [("project_bn", _norm(out_channels))]
    stays = stride == 1 and channels == out_channels
    return MobileBlock(nn.Sequential(OrderedDict(layers)), use_res_connect=stays)


def _convolution(
    name: str, channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
) -> list[tuple[str, nn.Module]]:
    """Return a convolution without bias, and what pads for it where it has a stride."""
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(
        channels, out_channels, kernel, stride, padding, groups=groups, bias=False
    )
    if stride == 1:
        return [(name, convolution)]
    # As TensorFlow's "same" does it, for maps of even size.
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    return [(f"{name}_pad", nn.ZeroPad2d((before, after, before, after))), (name, convolution)]


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
