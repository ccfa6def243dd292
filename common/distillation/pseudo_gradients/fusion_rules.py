"""The adjoint of layers that give a map: transposed convolution and skip fusion (FCN-8s).

A transposed convolution of stride s makes s pixels out of one, so a gradient map at its output may
be larger than the nominal one by multiples of s only.

Shapes: N batch, C channels of the input, O out-channels, H/W height and width of a gradient map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.pseudo_gradients.rules import Shape, Site
from rootstock.common.errors import TransplantError
from rootstock.common.nets.branches import SkipFusion


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
        """Go down both branches and add up."""
        deep, skip = self._deep.adjoint(gradient), self._skip.adjoint(gradient)
        if deep.shape != skip.shape:
            raise TransplantError(
                f"layer '{self._site.path}' gets a gradient map of {tuple(gradient.shape[2:])}, "
                f"which belongs to an input of {tuple(deep.shape[2:])} by one branch and of "
                f"{tuple(skip.shape[2:])} by the other; use a G of the output's nominal size, "
                f"{self.output_shape[1:]}, or one larger by a multiple of the module's strides"
            )
        return deep + skip
