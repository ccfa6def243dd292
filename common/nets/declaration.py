"""What an architecture declares: typed settings, named split points, layers in order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field
from torch import nn

from common.model import Document

Layer = tuple[str, Callable[[], nn.Module]]
"""A layer's name and what builds it; nothing is allocated before the split is known."""


class Architecture(Document):
    """An architecture with its settings. A lab supplies those, so each is typed and capped."""

    model_config = ConfigDict(strict=True)

    split_points: ClassVar[tuple[str, ...]]
    input_size: int
    in_channels: int = Field(default=3, ge=1, le=16)

    @abstractmethod
    def layers(self, outputs: int) -> Sequence[Layer]:
        """Return the layers of f followed by those of g, lowest first."""
