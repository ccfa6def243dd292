"""The adjoint of layers that branch, or give a map: blocks, skip fusion, transposed convolution.

A sum of branches gives back the sum of their gradients. torchvision's blocks are taken as they are.
Theirs use one ReLU layer at several places, so each has a name of its own, by the convolution
before it: `block.relu1`, `block.relu2`, …. A transposed convolution of stride s makes s pixels out
of one, so a gradient map at its output may be larger than the nominal one by multiples of s only.

Shapes: N batch, C channels of the input, O out-channels, H/W height and width of a gradient map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.pseudo_gradients.rules import (
    ChannelNormRule,
    Conv2dRule,
    PlacewiseRule,
    ReluRule,
    Rule,
    Shape,
    Site,
)
from rootstock.common.errors import TransplantError
from rootstock.common.nets.branches import PaddedShortcut, SkipFusion


class _ResNetBlock(Protocol):
    """The members that torchvision's BasicBlock and Bottleneck have in common."""

    relu: nn.Module
    downsample: nn.Module | None

    def get_submodule(self, target: str) -> nn.Module: ...


class _InvertedResidual(Protocol):
    """The members of torchvision's InvertedResidual (MobileNetV2), and of our MobileBlock."""

    use_res_connect: bool

    def get_submodule(self, target: str) -> nn.Module: ...


class _SqueezeExcitation(Protocol):
    """The members of torchvision's SqueezeExcitation."""

    fc1: nn.Conv2d
    fc2: nn.Conv2d
    activation: nn.Module
    scale_activation: nn.Module


class _ConvNextBlock(Protocol):
    """The members of torchvision's CNBlock."""

    block: nn.Sequential
    layer_scale: Tensor


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
        # A chain of the block's own layers, which keep their own paths.
        self._branch = site.rule(nn.Sequential(above), site)
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
        gradient = self._last.adjoint(gradient)
        back = self._branch.adjoint(gradient)
        return back + (self._shortcut.adjoint(gradient) if self._shortcut else gradient)


class BottleneckRule(BasicBlockRule):
    """As a basic block, with 1×1, 3×3 (strided) and 1×1 convolutions."""

    convs = 3


class InvertedResidualRule:
    """conv(x), plus x where the size stays (Sandler et al., 2018); no ReLU after the sum."""

    branch = "conv"

    def __init__(self, layer: _InvertedResidual, site: Site) -> None:
        self._branch = site.inner(self.branch, layer.get_submodule(self.branch), site.shape)
        self.output_shape: Shape = self._branch.output_shape
        self._adds = layer.use_res_connect
        if self._adds:
            _require_one_shape(site, self.output_shape, site.shape)

    def adjoint(self, gradient: Tensor) -> Tensor:
        back = self._branch.adjoint(gradient)
        return back + gradient if self._adds else back


class MobileBlockRule(InvertedResidualRule):
    """torchvision's blocks of MobileNetV3 and of EfficientNet: block(x), plus x where it stays.

    Stochastic depth drops branches in training alone.
    """

    branch = "block"


class SqueezeExcitationRule:
    """s(x) ⊙ x (Hu et al., 2018), with the gate s held at what it is for a map of zeros.

    The gate is a number a channel, between 0 and 1, that an image opens; its own derivative is left
    out as a ReLU's is. What the gate is without an image, its biases say.
    """

    def __init__(self, layer: _SqueezeExcitation, site: Site) -> None:
        squeezed = layer.fc1.in_channels
        self.output_shape = (squeezed, *site.shape[1:])
        if site.shape != self.output_shape:
            raise TransplantError(
                f"layer '{site.path}' gates {squeezed} channels and gets shape {site.shape}; "
                "category module, adapter and task module must fit together"
            )
        zeros = layer.fc1.weight.new_zeros(1, squeezed, 1, 1)
        excited = layer.fc2(layer.activation(layer.fc1(zeros)))
        self._gate_C11: Tensor = layer.scale_activation(excited)[0].detach()

    def adjoint(self, gradient: Tensor) -> Tensor:
        return gradient * self._gate_C11.to(gradient.dtype)


class ConvNextBlockRule:
    """x + s ⊙ block(x) (Liu et al., 2022): a convolution a channel, then two layers at a place."""

    def __init__(self, layer: _ConvNextBlock, site: Site) -> None:
        convolved, _, norm, widen, gate, narrow, _ = layer.block
        # torchvision's block turns channels last for the layers at a place, and back.
        kinds: list[tuple[int, nn.Module, Callable[[Any, Site], Rule]]] = [
            (0, convolved, Conv2dRule),
            (2, norm, ChannelNormRule),
            (3, widen, PlacewiseRule),
            (4, gate, ReluRule),
            (5, narrow, PlacewiseRule),
        ]
        self._rules: list[Rule] = []
        shape = site.shape
        for place, inner, kind in kinds:
            rule = kind(inner, site.at(f"block.{place}", shape))
            self._rules.append(rule)
            shape = rule.output_shape
        _require_one_shape(site, shape, site.shape)
        self.output_shape: Shape = shape
        self._scale_C11 = layer.layer_scale

    def adjoint(self, gradient: Tensor) -> Tensor:
        back = gradient * self._scale_C11.to(gradient.dtype)
        for rule in reversed(self._rules):
            back = rule.adjoint(back)
        return gradient + back


class PaddedShortcutRule:
    """Every stride-th pixel and zero channels: the gradient of those that were kept, put back."""

    def __init__(self, layer: PaddedShortcut, site: Site) -> None:
        _, height, width = site.expect_map(layer, channels=layer.in_channels)
        self._layer, self._site = layer, site
        thinned = (-(-n // layer.stride) for n in (height, width))
        self.output_shape: Shape = (layer.out_channels, *thinned)

    def adjoint(self, gradient: Tensor) -> Tensor:
        layer = self._layer
        height, width = self._site.grown(gradient, self.output_shape, (layer.stride, layer.stride))
        back = gradient.new_zeros(len(gradient), layer.in_channels, height, width)
        back[:, :, :: layer.stride, :: layer.stride] = gradient[
            :, layer.before : layer.before + layer.in_channels
        ]
        return back


class ConvTranspose2dRule:
    """Transposed convolution: the convolution with the same weight."""

    def __init__(self, layer: nn.ConvTranspose2d, site: Site) -> None:
        shape = site.expect_map(layer, channels=layer.in_channels)
        sizes = [
            (size - 1) * stride - 2 * int(padding) + dilation * (kernel - 1) + spare + 1
            for size, stride, padding, dilation, kernel, spare in zip(
                shape[1:],
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.kernel_size,
                layer.output_padding,
                strict=True,
            )
        ]
        if min(sizes) < 1:
            raise TransplantError(
                f"layer '{site.path}' pads away its whole output; use larger images"
            )
        self._layer, self._site = layer, site
        self.output_shape: Shape = (layer.out_channels, *sizes)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Convolve; what the output padding added gets no weight."""
        layer = self._layer
        steps = [
            n - size for n, size in zip(gradient.shape[2:], self.output_shape[1:], strict=True)
        ]
        if any(step % stride for step, stride in zip(steps, layer.stride, strict=True)):
            raise TransplantError(
                f"layer '{self._site.path}' upsamples by {layer.stride} and gets a gradient map "
                f"{steps} pixels larger than its output; enlarge G by multiples of its stride"
            )
        height, width = (
            size + step // stride
            for size, step, stride in zip(self._site.shape[1:], steps, layer.stride, strict=True)
        )
        back = F.conv2d(
            gradient,
            layer.weight.to(gradient.dtype),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
        return back[:, :, :height, :width]


class SkipFusionRule:
    """deep(x) + skip(x): the sum of both branches' gradients."""

    def __init__(self, layer: SkipFusion, site: Site) -> None:
        self._site = site
        self._deep = site.inner("deep", layer.deep, site.shape)
        self._skip = site.inner("skip", layer.skip, site.shape)
        self.output_shape: Shape = self._deep.output_shape
        if self._skip.output_shape != self.output_shape:
            raise TransplantError(
                f"layer '{site.path}' adds a map of {self._skip.output_shape} to one of "
                f"{self.output_shape} (channels, height, width); both branches must give one shape"
            )

    def adjoint(self, gradient: Tensor) -> Tensor:
        deep, skip = self._deep.adjoint(gradient), self._skip.adjoint(gradient)
        if deep.shape != skip.shape:
            raise TransplantError(
                f"layer '{self._site.path}' gets a gradient map of {tuple(gradient.shape[2:])}, "
                f"which belongs to an input of {tuple(deep.shape[2:])} by one branch and of "
                f"{tuple(skip.shape[2:])} by the other; use a G of the output's nominal size, "
                f"{self.output_shape[1:]}, or one larger by a multiple of the module's strides"
            )
        return deep + skip


def _require_one_shape(site: Site, branch: Shape, shortcut: Shape) -> None:
    if branch != shortcut:
        raise TransplantError(
            f"block '{site.path}' adds a branch of shape {branch} to a shortcut of {shortcut}; "
            "give it a downsample layer that matches"
        )
