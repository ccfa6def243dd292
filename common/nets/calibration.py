"""What an edge does to the output of its task module: y ↦ scale · y + bias (METHODS 1i).

Shapes: y of any shape.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from common.model import Document

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

    def module(self) -> nn.Module:
        """Return it as a module: what it says goes into weights with the net that it ends."""
        return nn.Identity() if self.identity else _Calibrated(self)


class _Calibrated(nn.Module):
    """A calibration as () float32 buffers `scale` and `bias`; bit for bit as `apply` on float32."""

    scale: Tensor
    bias: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("bias", torch.tensor(calibration.bias))

    def forward(self, y: Tensor) -> Tensor:
        return self.scale * y + self.bias
