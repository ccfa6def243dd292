"""An architecture's declaration: typed settings, named split points, layers in order."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import nn

from rootstock.common.documents import Document

Layer = tuple[str, Callable[[], nn.Module]]
"""A layer's name and what builds it; nothing is allocated before the split is known."""


def sequence(layers: Sequence[Layer]) -> nn.Sequential:
    """Build layers; their values are torch's, and the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(OrderedDict((name, build()) for name, build in layers))


class Architecture(Document):
    """An architecture with its settings. A lab supplies those, so each is typed and capped."""

    model_config = ConfigDict(strict=True)

    split_points: ClassVar[tuple[str, ...]]
    input_size: int
    in_channels: int = Field(default=3, ge=1, le=16)

    @abstractmethod
    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return the layers of f followed by those of g, lowest first."""


class Segmenting(Architecture):
    """An architecture that also has a g which scores every pixel."""

    @abstractmethod
    def segmentation_layers(self, split: str, outputs: int) -> Sequence[Layer]:
        """Return the layers of g above a split, lowest first; its map is as large as the image."""
