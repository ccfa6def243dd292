"""How good nets are, alone and recombined, and how alike their features.

Shapes: N images, C channels, S side, K classes, P positions of all images' feature maps.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from rootstock.common.compatible.batchnorm import re_estimate
from rootstock.common.images import normalise

_BATCH = 256


def recombined(f: nn.Module, head: nn.Module, unlabelled_NCSS: Tensor | None) -> nn.Sequential:
    """Put the extractor of one net below the head of another; both stay as they are.

    BatchNorm's statistics are re-estimated on the uint8 images (paper, section 4); None keeps the
    training's.
    """
    net = nn.Sequential(copy.deepcopy(f), copy.deepcopy(head)).eval()
    if unlabelled_NCSS is not None:
        device = next(net.parameters()).device
        re_estimate(net, (_input(part, device) for part in torch.split(unlabelled_NCSS, _BATCH)))
    return net


@torch.no_grad()
def outputs(net: nn.Module, images_NCSS: Tensor) -> Tensor:
    """Return the net's outputs (N, …) of uint8 images, on the CPU."""
    device = next(net.parameters()).device
    return torch.cat([net(_input(part, device)).cpu() for part in torch.split(images_NCSS, _BATCH)])


def accuracy(scores_NK: Tensor, classes_N: Tensor, among: int | None = None) -> float:
    """Return the accuracy in percent, among all classes or the first few.

    Images of the others do not count, and the head chooses among these: the classes in common
    (paper, appendix C).
    """
    among = scores_NK.shape[1] if among is None else among
    inside_N = classes_N < among
    right = scores_NK[inside_N, :among].argmax(1) == classes_N[inside_N]
    return 100 * float(right.float().mean())


def class_accuracy(scores_NK: Tensor, classes_N: Tensor) -> float:
    """Return the mean over classes of each class's accuracy, in percent."""
    right_N = (scores_NK.argmax(1) == classes_N).float()
    there = [kind for kind in range(scores_NK.shape[1]) if bool((classes_N == kind).any())]
    each = [right_N[classes_N == kind].mean() for kind in there]
    return 100 * float(torch.stack(each).mean())


def cross_correlation(f_a: nn.Module, f_b: nn.Module, images_NCSS: Tensor) -> Tensor:
    """Return the correlation of each channel of one extractor with each of another's (C, C).

    Over all images and places; 0 for a channel that never changes (paper, section 4, after Li et
    al., 2016, "Convergent learning").
    """
    a_PC, b_PC = (_standardised(outputs(f, images_NCSS)) for f in (f_a, f_b))
    return a_PC.T @ b_PC / len(a_PC)


def _standardised(features_NCHW: Tensor) -> Tensor:
    features_PC = features_NCHW.movedim(1, -1).flatten(0, -2).double()
    deviation_C = features_PC.std(0, correction=0)
    centred_PC = features_PC - features_PC.mean(0)
    return centred_PC / deviation_C.where(deviation_C > 0, 1.0)


def permuted(correlation_CC: Tensor) -> float:
    """Return the mean correlation under the best permutation of one net's channels."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(correlation_CC.numpy(), maximize=True)
    return float(correlation_CC[rows, columns].mean())


def _input(images_NCSS: Tensor, device: torch.device) -> Tensor:
    return normalise(images_NCSS.to(device)).to(memory_format=torch.channels_last)
