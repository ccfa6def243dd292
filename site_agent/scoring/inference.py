"""Running frozen nets over a lab's images.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rootstock.common.distillation import problem
from rootstock.common.images.decode import batches
from rootstock.common.nets.training import device_of
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.state import check

BATCH = 64
"""Images at once: enough to keep the cores busy, 200 MB of features for VGG-16 at 224 pixels."""


@torch.no_grad()
def logits(
    category_module: nn.Module,
    heads: Mapping[str, nn.Module],
    images: ImageSet,
    stop: threading.Event | None = None,
) -> dict[str, Tensor]:
    """Run f once and every head on its features, all in evaluation mode.

    Heads are what follows f, by name: g, or g_S∘h. Returns their logits on the CPU: (N), or
    (N, H, W) of a segmentation.
    """
    collected: dict[str, list[Tensor]] = {name: [] for name in heads}
    for x_NCHW in batches(images.images_NCHW, device_of(category_module), BATCH):
        check(stop)
        features_NCHW = category_module(x_NCHW)
        for name, head in heads.items():
            collected[name].append(problem.logits(head(features_NCHW)).cpu())
    return {name: torch.cat(parts) for name, parts in collected.items()}
