"""Scores nets on a lab's images: forward passes in batches, counts over images or labelled pixels.

Pixel accuracy and mean IoU are as in torchvision's reference for segmentation: a confusion matrix
over all pixels of all images, the share on its diagonal, the mean of both classes' IoU.

Shapes: N images, C channels, H/W height and width; for a segmentation (N) also means (N, H, W).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rootstock.common.distillation import problem
from rootstock.common.distillation.problem import cross_entropy
from rootstock.common.images import batches
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


def confusion(logits_N: Tensor, labels_N: Tensor) -> Tensor:
    """Count what is labelled by label (rows) and prediction (columns): rest, category.

    Returns (2, 2), int64. Pixels without a label are left out. A logit that is no number is wrong.
    """
    labelled = ~labels_N.isnan()
    is_N, y_N = labels_N[labelled] > 0.5, logits_N[labelled]
    predicted_N = torch.where(y_N.isnan(), ~is_N, y_N > 0)
    return torch.bincount(2 * is_N.long() + predicted_N.long(), minlength=4).reshape(2, 2)


def error_percent(logits_N: Tensor, labels_N: Tensor) -> float:
    """Return the share on the wrong side of threshold 0, in percent; 100 − pixel accuracy of maps.

    Plain error; on a validation or holdout set, which has equally many images of the category
    and of the rest, a classification's is the balanced error too.
    """
    counts = confusion(logits_N, labels_N).to(torch.float64)
    return 100.0 * (1.0 - float(counts.diagonal().sum() / counts.sum()))


def errors_by_image(logits_N: Tensor, labels_N: Tensor) -> Tensor:
    """Return each image's share on the wrong side of threshold 0, of its labelled pixels in a map.

    Shape (N), float64; images without a labelled pixel are left out. A logit that is no number is
    wrong.
    """
    labels, y = (each.reshape(len(each), -1) for each in (labels_N, logits_N))
    wrong = ((y > 0) != (labels > 0.5)) | y.isnan()
    labelled = ~labels.isnan()
    counts_N = labelled.sum(1)
    shown = counts_N > 0
    shares_N: Tensor = (wrong & labelled).sum(1)[shown].double() / counts_N[shown]
    return shares_N


def mean_iou_percent(logits_N: Tensor, labels_N: Tensor) -> float | None:
    """Return the mean IoU of the category's pixels and of the rest's, in percent.

    None for a classification. A class that is neither there nor predicted is left out.
    """
    if labels_N.ndim == 1:
        return None
    counts = confusion(logits_N, labels_N).to(torch.float64)
    iou_2 = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    return 100.0 * float(iou_2.nanmean())


class Score(NamedTuple):
    """What candidates are compared by: the smaller the better."""

    error: float
    """Percent."""
    loss: float
    """The mean binary cross-entropy, which breaks ties."""


def score(logits_N: Tensor, labels_N: Tensor) -> Score:
    """Return error and task loss."""
    return Score(error_percent(logits_N, labels_N), float(cross_entropy(logits_N, labels_N)))
