"""BatchNorm after recombining: statistics of what the recombined net sees (paper 004, section 4).

A head's running statistics describe features of the extractor that it was trained with. Above
another one they are wrong, and the paper loses half its accuracy to that.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rootstock.common.errors import DataError
from rootstock.common.images import batches

TOGETHER = 64
"""Images of a batch at least, however large: statistics are within batches."""
FEWEST = 32
"""Images that statistics rest on; of fewer they are noise."""


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Return a net's BatchNorm layers, in the order in which they were registered."""
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


@torch.no_grad()
def re_estimate(net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set every BatchNorm's statistics to those of unlabelled images, in place.

    Cumulative over batches (N, C, H, W), so that their order does not matter; weights stay as they
    are. A net without BatchNorm is left alone. Fewer than `FEWEST` images are refused, and leave
    the net as it was, but for its mode: evaluation. Returns the number of images.
    """
    layers = norms(net)
    if not layers:
        net.eval()
        return 0
    before = [copy.deepcopy(layer.state_dict()) for layer in layers]
    momenta = [layer.momentum for layer in layers]
    net.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's word for a cumulative mean
        layer.train()
    images = 0
    try:
        for batch_NCHW in batches:
            net(batch_NCHW)
            images += len(batch_NCHW)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    if images < FEWEST:
        for layer, state in zip(layers, before, strict=True):
            layer.load_state_dict(state)
        raise DataError(
            f"BatchNorm statistics from {images} images would be noise; give {FEWEST} or more, "
            "they need no labels"
        )
    return images


def re_estimate_below(
    category_module: nn.Module,
    task_modules: Iterable[nn.Module],
    images_NCHW: Tensor,
    device: torch.device,
) -> None:
    """Set the statistics of f, and of each g above it, to those of unlabelled images, in place.

    Images are uint8; the modules are on the device.
    """
    for g in task_modules:
        # f's come out the same each time: they depend on what is below alone.
        re_estimate(
            nn.Sequential(category_module, g), batches(images_NCHW, device, fewest=TOGETHER)
        )
