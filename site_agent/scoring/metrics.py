"""How well a net does on a lab's images: plain counts over images, or over labelled pixels.

Pixel accuracy and mean IoU are as in torchvision's reference for segmentation: a confusion matrix
over all pixels of all images, the share on its diagonal, the mean of both classes' IoU.

Shapes: (N) images; for a segmentation (N) also means (N, H, W).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rootstock.common.distillation.problem import cross_entropy


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
