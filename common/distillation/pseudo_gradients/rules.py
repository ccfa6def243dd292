"""The adjoint of each layer type, as Eq. 4b of Network Transplanting wants it.

A rule answers two questions about one layer where it stands: which shape comes out, and how a
gradient at its output goes back to its input. No rule reads a feature map, so no image is needed.

Shapes: N batch, C channels (I of the layer's input, O of its output), H/W height and width of a
gradient map, S side of an enlarged G. A vector of F features is a gradient map (N, F, S, S).

Enlarged maps. Every layer here is a stencil that slides over its input, so a gradient map that is n
steps larger than the layer's nominal output belongs to an input that is n strides larger than the
nominal one; at the nominal size the rule is the layer's exact transpose. This is what "enlarged"
means for a G of S×S instead of a scalar (paper, appendix): the net seen as sliding over a larger
picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter

Shape = tuple[int, ...]
"""(C, H, W) of a map or (F,) of a vector, without the batch."""


class Rule(Protocol):
    """A rule takes one layer's part in a pseudo-gradient.

    To add a layer type: write a class that takes (layer, site), raises TransplantError if the layer
    cannot stand there, and has these two members; then add it to `adjoint.RULES`.
    """

    output_shape: Shape
    """Shape of the layer's output at the nominal size."""

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Take a gradient (N, O, H, W) at the output, possibly enlarged, back to the input."""


@dataclass(frozen=True)
class Site:
    """The position of a layer in its net."""

    path: str
    """Names of its containers and its own, with dots; errors and masks go by it."""
    shape: Shape
    """Nominal shape of its input."""
    mask: Callable[[Tensor, str], Tensor]
    """Dummy derivative of the ReLU at a path."""
    rule: Callable[[nn.Module, Site], Rule]
    """Finds the rule of an inner layer."""

    def at(self, name: str, shape: Shape) -> Site:
        """Return the position of a layer inside this one."""
        path = f"{self.path}.{name}" if self.path else name
        return Site(path, shape, self.mask, self.rule)

    def inner(self, name: str, layer: nn.Module, shape: Shape) -> Rule:
        """Return the rule of a layer inside this one."""
        return self.rule(layer, self.at(name, shape))

    def expect_map(self, layer: nn.Module, channels: int | None = None) -> tuple[int, int, int]:
        """Return (C, H, W) of the input; a vector, or other channels, is refused."""
        if len(self.shape) != 3 or (channels is not None and self.shape[0] != channels):
            wanted = "a map" if channels is None else f"a map of {channels} channels"
            raise TransplantError(
                f"layer '{self.path}' ({type(layer).__name__}) takes {wanted} and gets shape "
                f"{self.shape}; category module, adapter and task module must fit together"
            )
        return self.shape[0], self.shape[1], self.shape[2]

    def grown(self, gradient: Tensor, nominal: Shape, stride: tuple[int, ...]) -> tuple[int, int]:
        """Return (H, W) of the input that a possibly enlarged gradient belongs to."""
        steps = [n - size for n, size in zip(gradient.shape[2:], nominal[1:], strict=True)]
        return self.shape[1] + steps[0] * stride[0], self.shape[2] + steps[1] * stride[1]


class IdentityRule:
    """Dropout, Identity: the gradient passes as it is (Eq. 4b ignores dropout)."""

    def __init__(self, _: nn.Module, site: Site) -> None:
        self.output_shape = site.shape

    def adjoint(self, gradient: Tensor) -> Tensor:
        return gradient


class ReluRule:
    """ReLU, ReLU6: dummy-1 passes the gradient on, dummy-2 multiplies it with 1(x_rand > 0).

    SiLU, GELU and Hardswish are x times a gate that opens smoothly from 0 to 1, a ReLU's at once:
    away from zero their derivatives are a ReLU's. Which side of zero x is on, dummy-2 draws; how
    near, no x_rand could say, as its scale would be an image's.
    """

    def __init__(self, _: nn.Module, site: Site) -> None:
        self.output_shape = site.shape
        self._site = site

    def adjoint(self, gradient: Tensor) -> Tensor:
        return self._site.mask(gradient, self._site.path)


class SequentialRule:
    """A chain: the adjoints of its layers in reverse order."""

    def __init__(self, layer: nn.Sequential, site: Site) -> None:
        self._rules: list[Rule] = []
        self.output_shape = site.shape
        # Not named_children, which leaves out a layer's second place if it stands at two.
        for name, child in zip(layer._modules, layer, strict=True):
            rule = site.inner(name, child, self.output_shape)
            self._rules.append(rule)
            self.output_shape = rule.output_shape

    def adjoint(self, gradient: Tensor) -> Tensor:
        for rule in reversed(self._rules):
            gradient = rule.adjoint(gradient)
        return gradient


class AdapterRule:
    """Back through the convolutions (dummy-1), × β, and channels back to where they came from."""

    def __init__(self, layer: Adapter, site: Site) -> None:
        self._layer = layer
        self._convs = site.inner("convs", layer.convs, site.shape)
        self.output_shape = self._convs.output_shape

    def adjoint(self, gradient: Tensor) -> Tensor:
        scaled = self._layer.beta.to(gradient.dtype) * self._convs.adjoint(gradient)
        # The reorder layer reads channel permutation[c] into c, so its adjoint puts c back there.
        return scaled[:, torch.argsort(self._layer.permutation)]


class Conv2dRule:
    """Convolution: the transposed convolution with the same weight. The bias has no derivative."""

    def __init__(self, layer: nn.Conv2d, site: Site) -> None:
        _, height, width = site.expect_map(layer, channels=layer.in_channels)
        if layer.padding_mode != "zeros":
            raise TransplantError(
                f"layer '{site.path}' pads with mode '{layer.padding_mode}', and only 'zeros' has "
                "a transposed convolution as its adjoint; use padding_mode='zeros'"
            )
        self._layer, self._site = layer, site
        self._spans = [
            dilation * (kernel - 1) + 1
            for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        self._before, self._after = _padding(layer, self._spans)
        sizes = [
            (size + before + after - span) // stride + 1
            for size, before, after, span, stride in zip(
                (height, width), self._before, self._after, self._spans, layer.stride, strict=True
            )
        ]
        if min(sizes) < 1:
            raise TransplantError(
                f"layer '{site.path}' covers {self._spans} pixels and its input has only "
                f"{height}×{width}; use larger images or a lower split point"
            )
        self.output_shape: Shape = (layer.out_channels, *sizes)

    def adjoint(self, gradient: Tensor) -> Tensor:
        layer = self._layer
        size = self._site.grown(gradient, self.output_shape, layer.stride)
        # Rows and columns beyond the last stride get no gradient: they are the output padding.
        spare = [
            s + before + after - ((n - 1) * stride + span)
            for s, before, after, n, stride, span in zip(
                size,
                self._before,
                self._after,
                gradient.shape[2:],
                layer.stride,
                self._spans,
                strict=True,
            )
        ]
        symmetric = self._before == self._after
        back = F.conv_transpose2d(
            gradient,
            layer.weight.to(gradient.dtype),
            stride=layer.stride,
            padding=self._before if symmetric else [0, 0],
            output_padding=spare,
            groups=layer.groups,
            dilation=layer.dilation,
        )
        if symmetric:
            return back
        top, left = self._before
        return back[:, :, top : top + size[0], left : left + size[1]]


class ZeroPad2dRule:
    """Zeros around a map: the gradient of what is inside them."""

    def __init__(self, layer: nn.ZeroPad2d, site: Site) -> None:
        channels, height, width = site.expect_map(layer)
        left, right, top, bottom = layer.padding
        if min(layer.padding) < 0:
            raise TransplantError(
                f"layer '{site.path}' pads by {tuple(layer.padding)}: it cuts the map, which has "
                "no rule here; pad by 0 or more"
            )
        self._layer = layer
        self.output_shape: Shape = (channels, height + top + bottom, width + left + right)

    def adjoint(self, gradient: Tensor) -> Tensor:
        left, right, top, bottom = self._layer.padding
        height, width = gradient.shape[2:]
        return gradient[:, :, top : height - bottom, left : width - right]


class LinearRule:
    """Linear layer: its transpose, at each of the S×S places (a 1×1 convolution's adjoint)."""

    def __init__(self, layer: nn.Linear, site: Site) -> None:
        if site.shape != (layer.in_features,):
            raise TransplantError(
                f"layer '{site.path}' takes {layer.in_features} features and gets {site.shape}; "
                "check input_size, or put a Flatten in front of it"
            )
        self._layer = layer
        self.output_shape: Shape = (layer.out_features,)

    def adjoint(self, gradient: Tensor) -> Tensor:
        return transposed(self._layer, gradient)


class FlattenRule:
    """Flatten of a C×h×w map: its gradient is laid out again as a map.

    Flatten and the layer after it are together an h×w convolution (METHODS.md, section 1). A
    gradient of S×S places therefore holds S×S overlapping patches of h×w, which are added up to a
    map of (S+h−1)×(S+w−1); at S = 1 that is a mere reshape.
    """

    def __init__(self, layer: nn.Flatten, site: Site) -> None:
        if layer.start_dim != 1 or layer.end_dim not in (-1, len(site.shape)):
            raise TransplantError(
                f"layer '{site.path}' flattens dimensions {layer.start_dim} to {layer.end_dim}; "
                "only a Flatten of all but the batch (1 to -1) has an adjoint here"
            )
        self._shape = site.shape
        self.output_shape: Shape = (torch.Size(site.shape).numel(),)

    def adjoint(self, gradient: Tensor) -> Tensor:
        if len(self._shape) == 1:
            return gradient
        places_h, places_w = gradient.shape[2:]
        _, height, width = self._shape
        if places_h == places_w == 1:
            return gradient.reshape(-1, *self._shape)
        return F.fold(
            gradient.flatten(2),
            output_size=(places_h + height - 1, places_w + width - 1),
            kernel_size=(height, width),
        )


class BatchNorm2dRule:
    """Batch normalisation as in evaluation: each channel × γ/√(σ²+ε), running variance σ²."""

    def __init__(self, layer: nn.BatchNorm2d, site: Site) -> None:
        site.expect_map(layer, channels=layer.num_features)
        if layer.running_var is None:
            raise TransplantError(
                f"layer '{site.path}' has no running statistics, so its derivative depends on "
                "images; train it with track_running_stats=True"
            )
        if layer.running_var.device.type != "meta" and bool((layer.running_var < 0).any()):
            raise TransplantError(
                f"layer '{site.path}' has a negative running variance, which no data gives; "
                "train the net anew, or take the checkpoint before"
            )
        scale_C = torch.rsqrt(layer.running_var + layer.eps)
        self._scale_C = scale_C * layer.weight if layer.affine else scale_C
        self.output_shape = site.shape

    def adjoint(self, gradient: Tensor) -> Tensor:
        return gradient * self._scale_C.to(gradient.dtype)[:, None, None]


class ChannelNormRule:
    """LayerNorm over the channels of a place: γ ⊙ (x − mean) / σ, with σ held at 1.

    σ is the image's own, a positive number a place, which no weight tells. γ and what the mean
    takes away are the same for every image.
    """

    def __init__(self, layer: nn.LayerNorm, site: Site) -> None:
        channels, _, _ = site.expect_map(layer)
        if tuple(layer.normalized_shape) != (channels,):
            raise TransplantError(
                f"layer '{site.path}' normalises {tuple(layer.normalized_shape)} and gets "
                f"{channels} channels; only a norm over the channels of a place has a rule here"
            )
        self._layer = layer
        self.output_shape = site.shape

    def adjoint(self, gradient: Tensor) -> Tensor:
        if self._layer.elementwise_affine:
            gradient = gradient * self._layer.weight.to(gradient.dtype)[:, None, None]
        return gradient - gradient.mean(dim=1, keepdim=True)


class PlacewiseRule:
    """A Linear at each place of a map, as a 1×1 convolution: its transpose."""

    def __init__(self, layer: nn.Linear, site: Site) -> None:
        _, height, width = site.expect_map(layer, channels=layer.in_features)
        self._layer = layer
        self.output_shape: Shape = (layer.out_features, height, width)

    def adjoint(self, gradient: Tensor) -> Tensor:
        return transposed(self._layer, gradient)


class AvgPool2dRule:
    """Average-pooling, and max-pooling as if it were (Eq. 4b): each place shares out its gradient.

    Max-pooling takes the derivative of `AvgPool2d` with the same kernel, stride, padding and
    ceil_mode, which no longer depends on where the maximum was.
    """

    def __init__(self, layer: nn.AvgPool2d | nn.MaxPool2d, site: Site) -> None:
        shape = site.expect_map(layer)
        self._site = site
        self._average = _as_average(layer, site)
        with torch.device("meta"):  # torch knows what ceil_mode does to sizes
            self.output_shape: Shape = tuple(self._average(torch.empty(1, *shape)).shape[1:])

    def adjoint(self, gradient: Tensor) -> Tensor:
        average = self._average
        size = self._site.grown(gradient, self.output_shape, _pair(average.stride))
        back: Tensor = torch.ops.aten.avg_pool2d_backward(
            gradient,
            gradient.new_empty(*gradient.shape[:2], *size),  # only its shape is read
            _pair(average.kernel_size),
            _pair(average.stride),
            _pair(average.padding),
            average.ceil_mode,
            average.count_include_pad,
            average.divisor_override,
        )
        return back


class AdaptiveAvgPool2dRule:
    """Adaptive average-pooling: the transpose of the averaging matrix along each side.

    Its stride is H_in / H_out, so an enlarged gradient belongs to an input that is larger in the
    same proportion, to the nearest pixel.
    """

    def __init__(self, layer: nn.AdaptiveAvgPool2d, site: Site) -> None:
        self._shape = site.expect_map(layer)
        wanted = layer.output_size
        pair = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        sizes = [
            old if new is None else new for old, new in zip(self._shape[1:], pair, strict=True)
        ]
        self.output_shape: Shape = (self._shape[0], *sizes)

    def adjoint(self, gradient: Tensor) -> Tensor:
        for side in (1, 2):
            nominal_pixels, nominal_places = self._shape[side], self.output_shape[side]
            if nominal_pixels == nominal_places:
                continue  # averages over single pixels: the identity
            places = gradient.shape[side + 1]
            pixels = max(1, round(nominal_pixels * places / nominal_places))
            matrix_PH = _averaging_matrix(pixels, places).to(gradient)
            gradient = (gradient.transpose(side + 1, 3) @ matrix_PH).transpose(side + 1, 3)
        return gradient


def transposed(layer: nn.Linear, gradient: Tensor) -> Tensor:
    """Return a Linear's transpose at each place, (N, O, S, S) to (N, I, S, S)."""
    weight_OI = layer.weight.to(gradient.dtype)
    # A convolution would first copy the transposed weight: 400 MB for VGG-16's fc6.
    return (gradient.movedim(1, 3) @ weight_OI).movedim(3, 1)


def _padding(layer: nn.Conv2d, spans: list[int]) -> tuple[list[int], list[int]]:
    """Return the padding before (top, left) and after (bottom, right) the map."""
    if layer.padding == "same":
        # As torch does it: an even span pads one more below and to the right.
        before = [(span - 1) // 2 for span in spans]
        return before, [span - 1 - n for span, n in zip(spans, before, strict=True)]
    both = [0, 0] if isinstance(layer.padding, str) else list(layer.padding)
    return both, both


def _averaging_matrix(pixels: int, places: int) -> Tensor:
    """Return the (places, pixels) matrix of adaptive average-pooling along one side."""
    matrix = torch.zeros(places, pixels, dtype=torch.float64)
    for place in range(places):
        begin = place * pixels // places
        end = -(-(place + 1) * pixels // places)
        matrix[place, begin:end] = 1 / (end - begin)
    return matrix


def _as_average(layer: nn.AvgPool2d | nn.MaxPool2d, site: Site) -> nn.AvgPool2d:
    if isinstance(layer, nn.AvgPool2d):
        return layer
    if layer.return_indices or _pair(layer.dilation) != (1, 1):
        raise TransplantError(
            f"layer '{site.path}' is a max-pool with dilation {layer.dilation} or indices as "
            "output, which no average-pool matches; use a plain one"
        )
    return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
