"""The net of one application, composed out of a transplant net: ready to run.

Apart from the graph, so that a net's history can be read without torch.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.errors import SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import build_category_module, build_task_module
from rootstock.common.nets.calibration import Calibration
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.card import NetCard, read_card


class ComposedNet(nn.Module):
    """An application's net: category module, adapter if there is one, task module, calibration."""

    def __init__(
        self,
        category_module: nn.Module,
        adapter: nn.Module | None,
        task_module: nn.Module,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.category_module = category_module
        self.adapter = nn.Identity() if adapter is None else adapter
        self.task_module = task_module
        self.calibration: nn.Module = nn.Identity()
        if calibration is not None and not calibration.identity:
            self.calibration = _Calibrated(calibration)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return scale · y_S + bias with y_S = g(h(f(I)))."""
        y_S: Tensor = self.task_module(self.adapter(self.category_module(images_NCHW)))
        output: Tensor = self.calibration(y_S)
        return output


class _Calibrated(nn.Module):
    """A calibration as () float32 buffers `scale` and `bias`: it goes into weights with the net.

    Bit for bit as `Calibration.apply` on float32.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("bias", torch.tensor(calibration.bias))

    def forward(self, y: Tensor) -> Tensor:
        return self.scale * y + self.bias


def load_composed(path: str | PathLike[str]) -> ComposedNet:
    """Read an exported net, frozen and in evaluation mode, every byte checked against its card.

    Raises NotFoundError if the file or its card is missing, SchemaError or IntegrityError if
    either is not what was exported.
    """
    path = Path(path)
    card = read_card(path, NetCard)
    if card.weights != "safetensors":
        raise SchemaError(
            f"{path}: is of format {card.weights}, not safetensors; load it so: {card.how_to_load}"
        )
    net = ComposedNet(
        build_category_module(card.category_architecture),
        None if card.adapter is None else Adapter(card.adapter),
        build_task_module(card.task_architecture, card.task),
        card.calibration,
    )
    return safetensors_io.load_frozen(net, path, card.blob)
