"""L(y, y*): binary cross-entropy, of images or of their labelled pixels.

Shapes: (N) images; for a segmentation (N) also stands for (N, H, W).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it


def cross_entropy(y_N: Tensor, labels_N: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy over what is labelled.

    Parameters
    ----------
    y_N
        Logits.
    labels_N
        From 0 to 1; a pixel's may be `UNLABELLED`, an image's may not.
    weight_N
        Of each image or pixel; None: 1.

    Returns
    -------
    A scalar. 0 where no pixel is labelled: a batch may hold none, and then says nothing.
    """
    if labels_N.ndim == 1:
        return F.binary_cross_entropy_with_logits(y_N, labels_N, weight=weight_N)
    labelled = ~labels_N.isnan()
    losses = F.binary_cross_entropy_with_logits(
        y_N, labels_N.nan_to_num(), weight=weight_N, reduction="none"
    )
    return (losses * labelled).sum() / labelled.sum().clamp_min(1)
