"""The problem to be solved: the frozen modules around the adapter, and samples if there are any.

Shapes: N samples, C/H/W of x = f(I), or H/W of a mask; (N) also stands for (N, H', W') of a
segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec, Shape
from rootstock.common.nets.training import device_of
from rootstock.common.protocol import NO_LABEL

UNLABELLED = float("nan")
"""The label of a pixel that nobody labelled, such as VOC's 255 along outlines. It takes part in no
loss; not a number, so that a loss which forgets to leave it out says so at once."""


@dataclass(frozen=True)
class TransplantProblem:
    """Find h such that g_S(h(x)) ≈ g_T(x) (Eq. 1).

    The task modules are frozen: making a problem puts them in evaluation mode and stops their
    gradients. They are never changed.
    """

    teacher_task: nn.Sequential
    """g_T."""
    student_task: nn.Sequential
    """g_S."""
    feature_shape: Shape
    """(C, H, W) of x = f(I)."""
    beta: float = 1.0
    """β of the rescale layer: E‖f_S(I)‖_F / E‖f(I)‖_F; 1 if the norms are not known."""

    def __post_init__(self) -> None:
        # β is a quotient of what two labs say: each may be sound, and the quotient overflow.
        float32 = torch.finfo(torch.float32)
        if not float32.tiny <= self.beta <= float32.max:
            raise TransplantError(
                f"β is {self.beta} and must be positive and finite in float32; check the "
                "feature norms that the labs shipped, or leave them out"
            )
        for module in (self.teacher_task, self.student_task):
            module.eval().requires_grad_(False)

    def identity_start(self, spec: AdapterSpec, permutation_C: Tensor | None = None) -> Adapter:
        """Return an adapter that passes x on, with β and the reorder layer, on g_S's device."""
        adapter = Adapter(spec).identity_start().to(device_of(self.student_task))
        adapter.beta.fill_(self.beta)
        return adapter if permutation_C is None else adapter.set_permutation(permutation_C)


@dataclass(frozen=True)
class Samples:
    """Features of images and what they show."""

    features_NCHW: Tensor
    labels_N: Tensor
    """1 for the category, 0 for the rest; between the two, a teacher's σ(y_T). (N), or for a
    segmentation (N, H', W'), a label for every pixel of y or `UNLABELLED`."""

    def __post_init__(self) -> None:
        count = len(self.features_NCHW)
        fits = self.labels_N.ndim in (1, 3) and len(self.labels_N) == count
        if count == 0 or not fits or self.features_NCHW.ndim != 4:
            raise TransplantError(
                f"samples need features (N, C, H, W) and labels (N), or (N, H, W) for a "
                f"segmentation, with N > 0, got {tuple(self.features_NCHW.shape)} and "
                f"{tuple(self.labels_N.shape)}"
            )
        if bool(self.labels_N.isnan().all()):
            raise TransplantError(
                f"none of the {count} samples has a labelled pixel; give some that do"
            )


def pixel_labels(masks_NHW: Tensor) -> Tensor:
    """Return a mask's labels as losses take them: float32, `UNLABELLED` where it has none."""
    return masks_NHW.to(torch.float32).masked_fill(masks_NHW == NO_LABEL, UNLABELLED)


def logits(y: Tensor) -> Tensor:
    """Return (N) of a task module's (N, 1), or (N, H, W) of its (N, 1, H, W)."""
    return y.squeeze(1)


def balanced(labels_N: Tensor, share: float) -> Tensor:
    """Return weights (N) by which category and rest weigh alike; a soft label is partly both.

    `share` is the labels' mean, or that of all that they are a batch of.
    """
    return labels_N * (0.5 / share) + (1 - labels_N) * (0.5 / (1 - share))


def cross_entropy(y_N: Tensor, labels_N: Tensor, weight_N: Tensor | None = None) -> Tensor:
    """Return L(y, y*), the mean binary cross-entropy over what is labelled.

    Labels are from 0 to 1; a pixel's may be `UNLABELLED`, an image's may not. The result is 0 where
    no pixel is labelled: a batch may hold none, and then says nothing.
    """
    if labels_N.ndim == 1:
        return F.binary_cross_entropy_with_logits(y_N, labels_N, weight=weight_N)
    labelled = ~labels_N.isnan()
    losses = F.binary_cross_entropy_with_logits(
        y_N, labels_N.nan_to_num(), weight=weight_N, reduction="none"
    )
    return (losses * labelled).sum() / labelled.sum().clamp_min(1)
