"""The pairs of layers that are matched, and the meta-networks that weigh them.

Shapes: N images, C channels of a source's map, H/W its height and width, K the channels of all
pairs side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError
from rootstock.common.l2t.distances import Wanted, wanted
from rootstock.common.l2t.student import Matched, Readable
from rootstock.common.l2t.taps import require_layers
from rootstock.common.nets.spec import Shape

SourceShapes = Mapping[str, Mapping[str, Shape]]
"""(C, H, W) of the layers that are read, lowest first, by the source's name."""
SourceFeatures = Mapping[str, Mapping[str, Tensor]]
"""(N, C, H, W) of the same."""


class Pair(NamedTuple):
    """One source layer m and one target layer n."""

    source: str
    layer: str
    """m, as `Source` names it."""
    target: str
    """n, as `Readable` names it."""

    def __str__(self) -> str:
        return f"{self.source}/{self.layer}->{self.target}"


def all_to_all(sources: SourceShapes, target: Readable) -> list[Pair]:
    """Pair every source layer with every end of a target's stage (figure 3c)."""
    return [
        Pair(source, layer, end)
        for source, layers in sources.items()
        for layer in layers
        for end in target.ends
    ]


def one_to_one(sources: SourceShapes, target: Readable) -> list[Pair]:
    """Pair stage with stage, from the last down (figure 3b); the deeper net's lowest have none."""
    return [
        Pair(source, layer, end)
        for source, layers in sources.items()
        for layer, end in zip(reversed(list(layers)), reversed(target.ends), strict=False)
    ]


def single(sources: SourceShapes, target: Readable) -> list[Pair]:
    """Pair the last stages alone (figure 3a)."""
    return [Pair(source, list(layers)[-1], target.ends[-1]) for source, layers in sources.items()]


CONFIGURATIONS = {"all": all_to_all, "one-to-one": one_to_one, "single": single}
"""By the names that configurations give them."""


class Matching:
    """The candidate pairs C of sources and a target (paper, section 2), given in any order.

    `pairs` are by target layer, lowest first: the order of everything that is a pair's.
    """

    def __init__(self, pairs: Sequence[Pair], sources: SourceShapes, target: Readable) -> None:
        _require(pairs, sources, target)
        order = list(target.shapes)
        self.pairs = tuple(sorted(pairs, key=lambda pair: order.index(pair.target)))
        self.channels = tuple(sources[pair.source][pair.layer][0] for pair in self.pairs)
        self._by_layer: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            self._by_layer.setdefault(pair.target, []).append(pair)
        self._target = {layer: target.shapes[layer] for layer in self._by_layer}

    def layers(self) -> list[Matched]:
        """Return what `Student` makes r_θ for."""
        widths = dict(zip(self.pairs, self.channels, strict=True))
        return [
            Matched(layer, self._target[layer][0], sum(widths[pair] for pair in pairs))
            for layer, pairs in self._by_layer.items()
        ]

    def wanted(self, features: SourceFeatures) -> list[Wanted]:
        """Return the source maps of every matched layer, ready for `Student`."""
        return [
            wanted(
                [features[pair.source][pair.layer] for pair in pairs],
                self._target[layer][0],
                self._target[layer][1:],
            )
            for layer, pairs in self._by_layer.items()
        ]

    def pooled(self, features: SourceFeatures) -> list[Tensor]:
        """Return the average-pooled source map (N, C) of every pair."""
        means = {
            (source, layer): map_NCHW.mean((2, 3))
            for source, layers in features.items()
            for layer, map_NCHW in layers.items()
        }
        return [means[pair.source, pair.layer] for pair in self.pairs]


def _require(pairs: Sequence[Pair], sources: SourceShapes, target: Readable) -> None:
    if not pairs:
        raise TransplantError(
            "there is no pair of a source layer and a target layer to match; name one"
        )
    for place, pair in enumerate(pairs):
        what = f"the pair {pair}"
        if pair in pairs[:place]:
            raise TransplantError(f"{what} is there twice; name it once")
        if pair.source not in sources:
            known = ", ".join(sources)
            raise TransplantError(f"{what}: there is no source '{pair.source}'; there are {known}")
        there = sources[pair.source]
        require_layers([pair.layer], there, what=f"{what}: source '{pair.source}'")
        require_layers([pair.target], target.shapes, what=f"{what}: the target")


class Weights(NamedTuple):
    """The meta-networks' answer to every image."""

    what: list[Tensor]
    """w (N, C) a pair, of sum 1 over channels."""
    where: list[Tensor]
    """λ (N) a pair, from 0 to 6."""

    def product(self) -> Tensor:
        """Return λ w (N, K), pair after pair."""
        pairs = zip(self.what, self.where, strict=True)
        return torch.cat([what_NC * where_N[:, None] for what_NC, where_N in pairs], 1)


class MetaNetworks(nn.Module):
    """One linear layer for w and one for λ, a pair, on average-pooled source features.

    φ of the paper. What: w = softmax(Linear(C, C)), zero at the start, which makes it uniform.
    Where: λ = ReLU6(Linear(C, 1)), weights zero and bias 1 at the start, which makes it 1 for every
    pair. The published runs draw these weights at random; then λ starts anywhere from 0 to 6, as
    features are large, and a pair that starts at 0 for all images has no gradient.

    `channels` are C of every pair's source map. Where `where` is frozen from the start, this is the
    paper's L2T-w; where `what` is as well, FM.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.what = nn.ModuleList(nn.Linear(c, c) for c in channels)
        self.where = nn.ModuleList(nn.Linear(c, 1) for c in channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        for layer in self.where:
            nn.init.ones_(layer.get_parameter("bias"))

    def forward(self, pooled: Sequence[Tensor]) -> Weights:
        """Return w and λ of every pair, from pooled features (N, C) a pair."""
        what = [layer(x_NC).softmax(1) for layer, x_NC in zip(self.what, pooled, strict=True)]
        where = [F.relu6(layer(x_NC)[:, 0]) for layer, x_NC in zip(self.where, pooled, strict=True)]
        return Weights(what, where)


def matching_loss(distances_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Return L_wfm, the mean over images of Σ λ L over pairs, L = Σ_c w_c d_c.

    Not divided by the number of pairs, as in the published runs. Distances d are `Student`'s,
    weights are λ w; see `Weights.product`.
    """
    return (distances_NK * weights_NK).sum(1).mean()
