"""Running frozen nets over a lab's images.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.images import normalise
from site_agent import stopping
from site_agent.data.images import ImageSet

BATCH = 64
"""Images at once: enough to keep the cores busy, 200 MB of features for VGG-16 at 224 pixels."""


def batches(images: ImageSet, device: torch.device) -> Iterator[Tensor]:
    """Yield normalised images (N,C,H,W) in order."""
    for start in range(0, len(images), BATCH):
        yield normalise(images.images_NCHW[start : start + BATCH]).to(device)


@torch.no_grad()
def logits(
    category_module: nn.Module,
    heads: Mapping[str, nn.Module],
    images: ImageSet,
    device: torch.device,
    stop: threading.Event,
) -> dict[str, Tensor]:
    """Run f once and every head on its features.

    Parameters
    ----------
    category_module
        f, in evaluation mode.
    heads
        What follows f, by name: g, or g_S∘h. In evaluation mode.
    images
        Any of the lab's image sets.

    Returns
    -------
    Logits (N) on the CPU, by the heads' names.

    Raises
    ------
    Stopped
        If `stop` is set.
    """
    collected: dict[str, list[Tensor]] = {name: [] for name in heads}
    for x_NCHW in batches(images, device):
        stopping.check(stop)
        features_NCHW = category_module(x_NCHW)
        for name, head in heads.items():
            collected[name].append(head(features_NCHW).flatten().cpu())
    return {name: torch.cat(parts) for name, parts in collected.items()}


def error_percent(logits_N: Tensor, labels_N: Tensor) -> float:
    """Return the share of images on the wrong side of threshold 0, in percent.

    Plain error; on a validation or holdout set, which holds equally many images of the category
    and of the rest, it is the balanced error too. A logit that is not a number is wrong.
    """
    right = torch.where(labels_N > 0.5, logits_N > 0, logits_N <= 0)
    return 100.0 * (1.0 - float(right.to(torch.float64).mean()))


def task_loss(logits_N: Tensor, labels_N: Tensor) -> float:
    """Return the mean binary cross-entropy; ties in error are broken by it."""
    return float(functional.binary_cross_entropy_with_logits(logits_N, labels_N))
