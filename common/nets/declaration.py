"""An architecture's declaration: typed settings, named split points, layers in order."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from rootstock.common.documents import Document

Layer = tuple[str, Callable[[], nn.Module]]
"""A layer's name and what builds it; nothing is allocated before the split is known."""


def sequence(layers: Sequence[Layer]) -> nn.Sequential:
    """Build layers; their values are torch's, and the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(OrderedDict((name, build()) for name, build in layers))


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """Replace a name's beginning by the first rule that matches it; else it stays.

    A rule is a pattern and what stands for it: "{1}" is the pattern's first group, "{1+1}" that
    number plus one.
    """
    for pattern, replacement in rules:
        if (found := re.match(pattern, name)) is not None:
            own = re.sub(
                r"\{(\d)(\+1)?\}",
                lambda at: _group(found, int(at[1]), plus_one=at[2] is not None),
                replacement,
            )
            return own + name[found.end() :]
    return name


def _group(found: re.Match[str], number: int, *, plus_one: bool) -> str:
    return str(int(found[number]) + 1) if plus_one else found[number]


class Architecture(Document):
    """An architecture with its settings. A lab supplies those, so each is typed and capped."""

    model_config = ConfigDict(strict=True)

    split_points: ClassVar[tuple[str, ...]] = ()
    signed: ClassVar[bool] = False
    """Whether x may be negative at the split points, which then do not end in a ReLU."""
    input_size: int
    in_channels: int = Field(default=3, ge=1, le=16)

    @abstractmethod
    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return the layers of f followed by those of g, lowest first."""

    def splits(self) -> Sequence[str]:
        """Return the layers that f may end with."""
        return self.split_points

    def gives_signed(self, split: str) -> bool:  # noqa: ARG002
        """Return whether x may be negative at a split."""
        return self.signed

    def own_name(self, published: str) -> str:
        """Translate a tensor's name in the published weights of this architecture."""
        return published

    def own_tensor(self, name: str, published: Tensor) -> Tensor:  # noqa: ARG002
        """Return a published tensor in the shape that ours of that name has."""
        return published


class Segmenting(Architecture):
    """An architecture that also has a g which scores every pixel."""

    @abstractmethod
    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return the layers of g above a split, lowest first; its map is as large as the image."""
