"""The adjoint of residual blocks: a sum of branches gives back the sum of their gradients.

torchvision's blocks are taken as they are. Theirs use one ReLU layer at several places, so each
place has a name of its own, by the convolution before it: `block.relu1`, `block.relu2`, ….

Shapes: N batch, C channels, O out-channels, H/W height and width of a gradient map.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from torch import Tensor, nn

from rootstock.common.distillation.pseudo_gradients.rules import Rule, Shape, Site
from rootstock.common.errors import TransplantError
from rootstock.common.nets.branches import PaddedShortcut


class _ResNetBlock(Protocol):
    """What torchvision's BasicBlock and Bottleneck have in common."""

    relu: nn.Module
    downsample: nn.Module | None

    def get_submodule(self, target: str) -> nn.Module: ...


class _InvertedResidual(Protocol):
    """What torchvision's InvertedResidual (MobileNetV2) has."""

    conv: nn.Sequential
    use_res_connect: bool


class BasicBlockRule:
    """relu(bn2(conv2(relu1(bn1(conv1(x))))) + shortcut(x)), after He et al., 2016."""

    convs = 2

    def __init__(self, layer: _ResNetBlock, site: Site) -> None:
        above: OrderedDict[str, nn.Module] = OrderedDict()
        for place in range(1, self.convs + 1):
            above[f"conv{place}"] = layer.get_submodule(f"conv{place}")
            above[f"bn{place}"] = layer.get_submodule(f"bn{place}")
            if place < self.convs:
                above[f"relu{place}"] = layer.relu
        self._branch = _branch(above, site)
        self.output_shape: Shape = self._branch.output_shape
        self._shortcut = (
            None
            if layer.downsample is None
            else site.inner("downsample", layer.downsample, site.shape)
        )
        _require_one_shape(
            site, self.output_shape, self._shortcut.output_shape if self._shortcut else site.shape
        )
        self._last = site.inner(f"relu{self.convs}", layer.relu, self.output_shape)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Go down both branches and add up."""
        gradient = self._last.adjoint(gradient)
        back = self._branch.adjoint(gradient)
        return back + (self._shortcut.adjoint(gradient) if self._shortcut else gradient)


class BottleneckRule(BasicBlockRule):
    """As a basic block, with 1×1, 3×3 (strided) and 1×1 convolutions."""

    convs = 3


class InvertedResidualRule:
    """conv(x), plus x where the size stays (Sandler et al., 2018); no ReLU after the sum."""

    def __init__(self, layer: _InvertedResidual, site: Site) -> None:
        self._branch = site.inner("conv", layer.conv, site.shape)
        self.output_shape: Shape = self._branch.output_shape
        self._adds = layer.use_res_connect
        if self._adds:
            _require_one_shape(site, self.output_shape, site.shape)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Go down the branch; the shortcut passes the gradient on."""
        back = self._branch.adjoint(gradient)
        return back + gradient if self._adds else back


class PaddedShortcutRule:
    """Every stride-th pixel and zero channels: the gradient of those that were kept, put back."""

    def __init__(self, layer: PaddedShortcut, site: Site) -> None:
        _, height, width = site.expect_map(layer, channels=layer.in_channels)
        self._layer, self._site = layer, site
        thinned = (-(-n // layer.stride) for n in (height, width))
        self.output_shape: Shape = (layer.out_channels, *thinned)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Drop the new channels' gradient and spread the rest over the strides."""
        layer = self._layer
        height, width = self._site.grown(gradient, self.output_shape, (layer.stride, layer.stride))
        back = gradient.new_zeros(len(gradient), layer.in_channels, height, width)
        back[:, :, :: layer.stride, :: layer.stride] = gradient[
            :, layer.before : layer.before + layer.in_channels
        ]
        return back


def _branch(layers: OrderedDict[str, nn.Module], site: Site) -> Rule:
    """Return the rule of a chain of a block's own layers, which keep their own paths."""
    return site.rule(nn.Sequential(layers), site)


def _require_one_shape(site: Site, branch: Shape, shortcut: Shape) -> None:
    if branch != shortcut:
        raise TransplantError(
            f"block '{site.path}' adds a branch of shape {branch} to a shortcut of {shortcut}; "
            "give it a downsample layer that matches"
        )
