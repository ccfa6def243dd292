"""The calibration of a join's output: y ↦ scale · y + bias (METHODS 1i).

Shapes: y of any shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rootstock.common.documents import Document

if TYPE_CHECKING:
    from torch import Tensor

MAX_CALIBRATION = 1e6
"""Cap on scale and |bias|: lab-supplied numbers pass through here."""
MIN_SCALE = 1e-6
"""A smaller scale would leave an output that says nothing, in float32 none at all."""


class Calibration(Document):
    """Two numbers a join: no module changes for them. The default is the identity."""

    scale: float = Field(default=1.0, ge=MIN_SCALE, le=MAX_CALIBRATION)
    bias: float = Field(default=0.0, ge=-MAX_CALIBRATION, le=MAX_CALIBRATION)

    @property
    def identity(self) -> bool:
        """Whether it leaves every output as it is."""
        return self.scale == 1.0 and self.bias == 0.0

    def apply(self, y: Tensor) -> Tensor:
        """Return scale · y + bias, of y's shape; the identity leaves y as it is, bit for bit."""
        return y if self.identity else self.scale * y + self.bias
