"""A net as torch.export's program, for any number of images at once.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rootstock.coordinator.export.layers import Run


def traced(net: nn.Module, example_NCHW: Tensor) -> ExportedProgram:
    """Return a net's program; N is any number, whatever the example's."""
    dynamic = ({0: Dim("batch", min=1)},)
    return torch.export.export(net, (example_NCHW,), dynamic_shapes=dynamic)


def convert(net: nn.Module, example_NCHW: Tensor) -> bytes:
    """Return what `torch.export.load` reads."""
    buffer = io.BytesIO()
    torch.export.save(traced(net, example_NCHW), buffer)
    return buffer.getvalue()


def opened(data: bytes) -> Run:
    """Return how to run what `convert` gave."""
    # Not what a peer sent: bytes of our own making.
    module = torch.export.load(io.BytesIO(data)).module()

    def run(images_NCHW: Tensor) -> Tensor:
        output: Tensor = module(images_NCHW)
        return output

    return run
