"""Trains an augmented net on minibatches, without a lab's checkpoints.

Shapes: N batch, C channels, H/W height and width, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.nets.training import cosine, descend
from rootstock.common.nettailor.augmented import AugmentedNet, activations
from rootstock.common.nettailor.learning import Costs, Settings, loss, optimiser_of


def learn(
    net: AugmentedNet,
    teacher: tuple[nn.Sequential, nn.Module],
    batches: Iterable[tuple[Tensor, Tensor]],
    costs: Costs,
    settings: Settings,
) -> None:
    """Train what is a task's own, in place: proxies, attention, head.

    Parameters
    ----------
    net
        In evaluation mode and frozen afterwards.
    teacher
        Extractor and head of the fine-tuned original; neither is changed.
    batches
        Images (N, C, H, W) and classes (N), at least `settings.steps` of them.
    costs
        c of every path.
    settings
        Steps, rates, weights of the loss.
    """
    extractor, head = copy.deepcopy(teacher)
    extractor.eval().requires_grad_(False)
    head.eval().requires_grad_(False)
    net.train().requires_grad_()
    optimiser = optimiser_of(net, settings)
    for step, (x_NCHW, classes_N) in zip(range(settings.steps), batches, strict=False):
        with torch.no_grad():
            shown = activations(extractor, head, x_NCHW)
        ours = net.activations(x_NCHW)
        (logits_NK,) = ours.logits
        told = F.cross_entropy(logits_NK, classes_N)
        found = loss(net, ours, shown, told, costs, settings)
        descend(optimiser, found, settings.learning_rate * cosine(step, settings.steps))
    net.eval().requires_grad_(False)
