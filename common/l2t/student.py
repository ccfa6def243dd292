"""The net that is trained: its layers are read as it runs, and projected to the sources' channels.

Shapes: N images, T and S channels of a target's and of a source's map, H/W height and width of the
target's map, K the channels of all pairs side by side, O outputs of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from rootstock.common.l2t.distances import Wanted, distances
from rootstock.common.l2t.taps import map_shapes, stage_ends
from rootstock.common.nets.spec import Shape


class Readable(NamedTuple):
    """The layers of a category module and its heads that give a feature map.

    Layers of f go by their names, a head's by "head/layer".
    """

    shapes: dict[str, Shape]
    """(T, H, W) by layer."""
    ends: tuple[str, ...]
    """Those after which maps get smaller; see `taps.stage_ends`."""


class Matched(NamedTuple):
    """One target layer and all that it is matched with."""

    layer: str
    target_channels: int
    """T."""
    source_channels: int
    """S, of all its pairs' source maps side by side."""


class Run(NamedTuple):
    """The result of one pass of the student."""

    features: dict[str, Tensor]
    """(N, T, H, W) by layer, of those that are read."""
    distances_NK: Tensor
    """Mean over pixels of (r_θ(T^n) − S^m)², pair after pair; (N, 0) without source maps."""
    outputs: dict[str, Tensor]
    """(N, O) by head; empty if the pass stopped at the last layer that is read."""


def readable(
    category_module: nn.Sequential, heads: Mapping[str, nn.Sequential], image_shape: Shape
) -> Readable:
    """Find out which layers of a net can be read, by running it once on an empty image."""
    shapes: dict[str, Shape] = {}
    ends: list[str] = []
    for head, module in heads.items():
        both = nn.Sequential(category_module, module)
        found = {}
        for name, shape in map_shapes(both, image_shape).items():
            place, _, layer = name.partition(".")
            if layer and "." not in layer:  # what is inside a block is left to it
                found[layer if place == "0" else f"{head}/{layer}"] = shape
        shapes |= found
        ends += stage_ends(found)
    return Readable(shapes, tuple(dict.fromkeys(ends)))


class Student(nn.Module):
    """A category module with its heads, and r_θ, 1×1 convolutions with bias.

    θ of the paper is all of its parameters. One convolution serves all pairs of a target layer; it
    is those of the pairs side by side. They have PyTorch's initial values, drawn from the global
    random state. `matched` are the target layers that r_θ is made for, `read` layers that are read
    besides.
    """

    def __init__(
        self,
        category_module: nn.Sequential,
        heads: Mapping[str, nn.Sequential],
        matched: Sequence[Matched] = (),
        read: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.category_module = category_module
        self.names = tuple(heads)
        # Lists: names of tasks and of their layers may hold what those of modules may not.
        self.heads = nn.ModuleList(heads.values())
        self.regressors = nn.ModuleList(nn.Conv2d(t, s, 1) for _, t, s in matched)
        self.targets = tuple(layer for layer, _, _ in matched)
        self.read = frozenset((*self.targets, *read))

    def forward(self, x_NCHW: Tensor, wanted: Sequence[Wanted] = (), *, to_end: bool = True) -> Run:
        """Run the net on normalised images.

        `wanted` is of every matched layer; without it distances are left out. If not `to_end`,
        heads give no outputs, and nothing runs above the layers that are read, which is all that
        matching needs.
        """
        features: dict[str, Tensor] = {}
        above = {name: self._read_in(head, f"{name}/") for name, head in self._named()}
        own = self._read_in(self.category_module, "")
        if to_end or any(above.values()):
            own = len(self.category_module)
        x = self._through(self.category_module, "", own, x_NCHW, features)
        outputs = {}
        for name, head in self._named():
            if to_end:
                outputs[name] = self._through(head, f"{name}/", len(head), x, features)
            else:
                self._through(head, f"{name}/", above[name], x, features)
        if not wanted:
            return Run(features, x_NCHW.new_zeros(len(x_NCHW), 0), outputs)
        held = zip(self.targets, self.regressors, wanted, strict=True)
        found = [
            distances(features[layer], cast("nn.Conv2d", regressor), one)
            for layer, regressor, one in held
        ]
        return Run(features, torch.cat(found, 1), outputs)

    def _named(self) -> list[tuple[str, nn.Sequential]]:
        heads = (cast("nn.Sequential", head) for head in self.heads)
        return list(zip(self.names, heads, strict=True))

    def _read_in(self, layers: nn.Sequential, prefix: str) -> int:
        names = [name for name, _ in layers.named_children()]
        return max((i for i, n in enumerate(names, start=1) if prefix + n in self.read), default=0)

    def _through(
        self, layers: nn.Sequential, prefix: str, count: int, x: Tensor, features: dict[str, Tensor]
    ) -> Tensor:
        for name, layer in list(layers.named_children())[:count]:
            x = layer(x)
            if prefix + name in self.read:
                features[prefix + name] = x
        return x
