"""Small sources and a small student, in float64 where gradients are held against differences."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootstock.common.l2t.distances import Wanted
from rootstock.common.l2t.matching import Matching, MetaNetworks, all_to_all
from rootstock.common.l2t.student import Readable, Student, readable
from rootstock.common.l2t.taps import Source

IMAGE = (3, 12, 12)


def net(widths: tuple[int, ...], outputs: int, seed: int, *, norms: bool = False) -> nn.Sequential:
    """Return conv, SiLU, pool a width, then a classifier; with BatchNorm and dropout if asked."""
    torch.manual_seed(seed)
    layers: list[tuple[str, nn.Module]] = []
    channels, side = IMAGE[0], IMAGE[1]
    for place, width in enumerate(widths, start=1):
        layers.append((f"conv{place}", nn.Conv2d(channels, width, 3, padding=1)))
        if norms:
            layers.append((f"bn{place}", nn.BatchNorm2d(width)))
        layers += [
            (f"act{place}", nn.SiLU()),  # smooth: differences of the loss hold
            (f"pool{place}", nn.AvgPool2d(2)),
        ]
        channels, side = width, side // 2
    layers.append(("flatten", nn.Flatten()))
    if norms:
        layers.append(("drop", nn.Dropout()))
    layers += [("fc", nn.Linear(channels * side * side, outputs))]
    return nn.Sequential(OrderedDict(layers))


def cut(whole: nn.Sequential, after: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Split a net after a layer."""
    names = [name for name, _ in whole.named_children()]
    end = names.index(after) + 1
    parts = list(whole.named_children())
    return nn.Sequential(OrderedDict(parts[:end])), nn.Sequential(OrderedDict(parts[end:]))


@dataclass(frozen=True)
class Case:
    """Sources of several widths and a student that is matched all-to-all with them."""

    sources: dict[str, Source]
    target: Readable
    matching: Matching
    student: Student
    metas: MetaNetworks
    x_NCHW: Tensor
    classes_N: Tensor

    def held(self) -> tuple[list[Wanted], list[Tensor]]:
        features = {name: source(self.x_NCHW).features for name, source in self.sources.items()}
        return self.matching.wanted(features), self.matching.pooled(features)


def case(sources: int = 2, dtype: torch.dtype = torch.float64, *, norms: bool = False) -> Case:
    widths = ((4, 7), (5, 6, 3))[:sources]
    found = {
        f"s{place}": Source(net(one, 4, place).to(dtype), None, IMAGE)
        for place, one in enumerate(widths)
    }
    f, g = cut(net((3, 5), 3, 9, norms=norms), "pool1")
    target = readable(f, {"head": g}, IMAGE)
    shapes = {name: source.shapes for name, source in found.items()}
    matching = Matching(all_to_all(shapes, target), shapes, target)
    torch.manual_seed(5)
    student = Student(f, {"head": g}, matching.layers()).to(dtype)
    metas = MetaNetworks(matching.channels).to(dtype)
    with torch.no_grad():
        for parameter in metas.what.parameters():  # away from the uniform start
            parameter.normal_(std=0.5)
        for layer in metas.where:
            layer.get_parameter("weight").normal_(std=0.3)
    x_NCHW = torch.randn(6, *IMAGE, dtype=dtype)
    return Case(found, target, matching, student, metas, x_NCHW, torch.randint(3, (6,)))
