"""A ResNet of which a lab kept the paths that its task needs (NetTailor).

Its extractor is what `common.nettailor.tailored.TailoredNet` exports: stem, kept universal blocks
with their α, proxies folded into 1×1 convolutions. Its features have the shape of the backbone's at
the last node, so that it stands below task modules of the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import ValidationError, model_validator
from torch import nn

from rootstock.common.documents import first_problem
from rootstock.common.errors import SchemaError
from rootstock.common.nets.declaration import Architecture, Layer
from rootstock.common.nets.resnet import ResNet18, SmallResNet, WideResNet
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.nets.tailored.blocks import LAYER, TailoredBlocks, Term, UniversalBlock
from rootstock.common.nets.tailored.paths import Path, from_text, name_of, text_of

NAME = "tailored-resnet"
BACKBONES: dict[str, type[Architecture]] = {
    "small-resnet": SmallResNet,
    "wide-resnet": WideResNet,
    "resnet18": ResNet18,
}
"""Architectures of basic blocks, which can be tailored."""


class TailoredResNet(Architecture):
    """A backbone's stem and those paths of its blocks that were kept; g is the backbone's.

    Other settings are the backbone's own, with its bounds and defaults.
    """

    split_points: ClassVar[tuple[str, ...]] = (LAYER,)
    backbone: Literal["small-resnet", "wide-resnet", "resnet18"]
    paths: str
    """As `common.nettailor.paths.text_of` writes them; the last node that it names is f's end."""
    width: int | None = None
    widen: int | None = None
    blocks: int | None = None
    shortcut: str | None = None
    input_size: int = 32
    """If it is not given, the backbone's default; `in_channels` likewise."""

    @model_validator(mode="before")
    @classmethod
    def _by_the_backbone(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("backbone") not in BACKBONES:
            return given
        below = _backbone(given)
        return given | {"input_size": below.input_size, "in_channels": below.in_channels}

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.kept()
        return self

    def kept(self) -> Kept:
        """Return what of the backbone is kept."""
        names = [name for name, _ in self._stages().blocks]
        paths = from_text(self.paths, len(names))
        return Kept(tuple(names[: paths[-1].target]), paths)

    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return stem, the kept paths as one layer, the backbone's other blocks, head."""
        stem, blocks, head = self._stages(outputs)
        kept = self.kept()
        end = len(kept.blocks)
        tailored: Callable[[], nn.Module] = partial(_tailored, blocks[:end], kept.paths)
        return [*stem, (LAYER, tailored), *blocks[end:], *head]

    def _stages(self, outputs: int = 1) -> _Stages:
        below = _backbone(self.model_dump(exclude_none=True))
        layers = below.layers(outputs)
        places = [i for i, (name, _) in enumerate(layers) if name in below.split_points]
        first, end = places[0], places[-1] + 1
        return _Stages(layers[:first], layers[first:end], layers[end:])


class _Stages(NamedTuple):
    stem: Sequence[Layer]
    blocks: Sequence[Layer]
    head: Sequence[Layer]


def tailored_spec(backbone: ArchitectureSpec, paths: Sequence[Path]) -> ArchitectureSpec:
    """Return the specification of an extractor of which these paths of a backbone were kept."""
    settings = {"backbone": backbone.name, "paths": text_of(paths), **backbone.settings}
    return ArchitectureSpec(name=NAME, split=LAYER, settings=settings)


def kept_of(spec: ArchitectureSpec) -> Kept:
    """Return what of its backbone a tailored extractor kept; refuse any other."""
    try:
        return TailoredResNet.model_validate(spec.settings).kept()
    except ValidationError as error:
        raise SchemaError(f"'{spec.name}' is no {NAME}: {first_problem(error)}") from error


class Kept(NamedTuple):
    """The blocks of a backbone up to the split, lowest first, and the paths that were kept."""

    blocks: tuple[str, ...]
    paths: tuple[Path, ...]


def _backbone(settings: dict[str, Any]) -> Architecture:
    own = {key: value for key, value in settings.items() if key not in ("backbone", "paths")}
    try:
        return BACKBONES[settings["backbone"]].model_validate(own)
    except ValidationError as error:
        raise ValueError(f"backbone '{settings['backbone']}': {first_problem(error)}") from error


def _tailored(blocks: Sequence[Layer], paths: Sequence[Path]) -> TailoredBlocks:
    names = [name for name, _ in blocks]
    kept = {path.target for path in paths if path.universal}
    built: list[Any] = []
    for node, (_, build) in enumerate(blocks, start=1):
        # Of those that were left out only the shapes are wanted.
        with torch.device("meta" if node not in kept else torch.get_default_device()):
            built.append(build())
    channels = [built[0].conv1.in_channels, *(block.conv2.out_channels for block in built)]
    strides = [block.conv1.stride[0] for block in built]

    def term(path: Path) -> Term:
        name = name_of(path, names)
        if path.universal:
            return Term(path, name, UniversalBlock(built[path.target - 1]))
        conv = nn.Conv2d(channels[path.source], channels[path.target], 1)
        return Term(path, name, conv, math.prod(strides[path.source : path.target]))

    return TailoredBlocks(term(path) for path in paths)
