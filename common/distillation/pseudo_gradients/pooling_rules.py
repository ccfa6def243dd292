"""The adjoint of pooling layers; `pseudo_gradients.rules` says what a rule is.

Shapes: N batch, C channels, H/W height and width of a gradient map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rootstock.common.distillation.pseudo_gradients.rules import Shape, Site
from rootstock.common.errors import TransplantError


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
        """Spread each place's gradient evenly over its window."""
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
        """Multiply with the transposed averaging matrices."""
        for side in (1, 2):
            nominal_pixels, nominal_places = self._shape[side], self.output_shape[side]
            if nominal_pixels == nominal_places:
                continue  # averages over single pixels: the identity
            places = gradient.shape[side + 1]
            pixels = max(1, round(nominal_pixels * places / nominal_places))
            matrix_PH = _averaging_matrix(pixels, places).to(gradient)
            gradient = (gradient.transpose(side + 1, 3) @ matrix_PH).transpose(side + 1, 3)
        return gradient


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
