"""Reads layers of a net while it runs.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.training import watched


class Seen(NamedTuple):
    """The result of one pass of a source."""

    features: dict[str, Tensor]
    """(N, C, H, W) by layer."""
    outputs: Tensor
    """Whatever the net gives: of a classifier a score a class."""


class Source(nn.Module):
    """A trained net of any architecture, some of whose layers are read.

    The net takes normalised images of `image_shape`; it is frozen, and left in evaluation mode for
    good: BatchNorm's statistics are the source's own. `layers` are names of modules inside it, as
    `named_modules` has them; None reads `stage_ends`.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str] | None, image_shape: Shape) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        known = map_shapes(net, image_shape)
        chosen = stage_ends(known) if layers is None else layers
        require_layers(chosen, known, what="the source")
        self.shapes = {layer: known[layer] for layer in chosen}

    def train(self, mode: bool = True) -> Source:  # noqa: ARG002
        """Stay in evaluation mode."""
        return self

    @torch.no_grad()
    def forward(self, x_NCHW: Tensor) -> Seen:
        """Return the maps of all chosen layers, and the outputs."""
        features: dict[str, Tensor] = {}

        def keep(name: str, output: Any) -> None:
            # A copy, as the layer after it may work in place: torchvision's ReLUs do.
            features[name] = output.clone()

        with watched({name: self.net.get_submodule(name) for name in self.shapes}, keep):
            outputs = self.net(x_NCHW)
        return Seen(features, outputs)


def require_layers(layers: Sequence[str], known: Mapping[str, Shape], *, what: str) -> None:
    """Refuse layers that give no feature map; the error names the first, and all that do."""
    for layer in layers:
        if layer not in known:
            raise TransplantError(
                f"{what} has no feature map at '{layer}'; it has at {', '.join(known)}"
            )


def map_shapes(net: nn.Module, image_shape: Shape) -> dict[str, Shape]:
    """Return the shape of every module's feature map, in the order in which they are finished.

    A module that gives no map (N, C, H, W) is left out. The net runs once, on an empty image; the
    last of several calls of a module counts.
    """
    found: dict[str, Shape] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found.pop(name, None)  # the order is of the last call
            _, channels, height, width = output.shape
            found[name] = (channels, height, width)

    training = net.training
    layers = {name: layer for name, layer in net.named_modules() if name}
    first = next(net.parameters())
    with watched(layers, note), torch.no_grad():
        net.eval()(first.new_zeros(1, *image_shape))
    net.train(training)
    return found


def stage_ends(shapes: dict[str, Shape]) -> list[str]:
    """Return the layers after which maps get smaller, given all as `map_shapes` returns them.

    A ResNet's stage ends and what a VGG's pools read (paper, figure 3). A map of one pixel between
    larger ones, as of squeeze and excitation, ends no stage.
    """
    names = list(shapes)
    sides = [shapes[name][1] for name in names]
    ends = []
    for place, name in enumerate(names[:-1]):
        following = sides[place + 1]
        if following < sides[place] and (following > 1 or max(sides[place + 1 :]) == 1):
            ends.append(name)
    return ends
