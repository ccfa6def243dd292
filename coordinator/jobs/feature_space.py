"""Computes the last hidden features of g_S, without and with the adapter that joins f to it.

As the paper's figure 5, for a coordinator that has no images: synthetic ones that are nobody's
(dead leaves), and the teacher's own answers to them as their colours. Where a transplant works,
images that the teacher tells apart lie apart.

Shapes: N images, C channels, H/W height and width, F features of the last hidden layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.distillation.auto.images import dead_leaves
from rootstock.common.documents import Document
from rootstock.common.errors import NotFoundError
from rootstock.common.nets.architectures import feature_shape, input_shape
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.training import in_batches
from rootstock.coordinator.net.compose import compose, loaded_task_module, task_of
from rootstock.coordinator.net.objects import read_teacher

PIXELS = 256 * 64 * 64
"""All images together: fewer of large ones, so that VGG-16 at 224 pixels takes seconds."""
FEWEST, MOST = 32, 256


class Space(Document):
    """Where images lie on the first two principal components, and how the answers agree."""

    positions: tuple[tuple[float, float], ...]
    """One for each image."""
    agreement: float
    """Spearman's rank correlation of y_S with the teacher's y_T; 1: the same order of images."""


class FeatureSpaces(Document):
    """A join without and with its adapter, on the same axes."""

    teacher_answers: tuple[float, ...]
    """y_T of each image."""
    joined: Space
    bare: Space | None
    """Without an adapter; None where there is none, or where f does not fit g_S without one."""


def feature_spaces(tree: NetTree, store: BlobStore, category: str, task: str) -> FeatureSpaces:
    """Return what the figure of a join shows; its task is a classification.

    Raises NotFoundError if the teacher has no module for the task, and as `compose` does.
    """
    module, head = tree.category_modules[category], tree.task_modules[task]
    manifest = read_teacher(store, module.submission)
    if task not in manifest.task_modules:
        raise NotFoundError(f"the teacher of '{category}' has no task module '{task}'")
    blob = manifest.task_modules[task]
    g_T = loaded_task_module(store, module.architecture, task_of(tree, task), blob)
    net = compose(tree, store, category, task)
    ways: list[nn.Module] = [net.adapter]
    if tree.edge(category, task).adapter is not None and (
        feature_shape(module.architecture) == feature_shape(head.architecture)
    ):
        ways.append(nn.Identity())
    with torch.inference_mode():
        shape = input_shape(module.architecture)
        count = min(MOST, max(FEWEST, PIXELS // (shape[1] * shape[2])))
        images_NCHW = dead_leaves(count, shape, torch.Generator().manual_seed(0))
        x_NCHW = in_batches(net.category_module, images_NCHW)
        y_T_N = in_batches(g_T, x_NCHW).flatten()
        passed = [_passed(nn.Sequential(way, net.task_module), x_NCHW) for way in ways]
        centre_F, axes_F2 = _principal(torch.cat([hidden_NF for hidden_NF, _ in passed]))
        spaces = [
            Space(
                positions=tuple(((hidden_NF - centre_F) @ axes_F2).tolist()),
                agreement=rank_correlation(y_S_N, y_T_N),
            )
            for hidden_NF, y_S_N in passed
        ]
    return FeatureSpaces(
        teacher_answers=tuple(y_T_N.tolist()),
        joined=spaces[0],
        bare=spaces[1] if len(spaces) > 1 else None,
    )


def rank_correlation(a_N: Tensor, b_N: Tensor) -> float:
    """Return Spearman's rank correlation; 0 where one of the two is always the same."""
    if not (a_N.min() < a_N.max() and b_N.min() < b_N.max()):
        return 0.0
    ranks_2N = torch.stack([a_N.argsort().argsort(), b_N.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks_2N)[0, 1])


def _passed(net: nn.Sequential, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the last layer takes, (N, F), and what the net says, (N)."""
    *below, last = (
        layer
        for stage in net
        for layer in (stage if isinstance(stage, nn.Sequential) else (stage,))
    )
    hidden_NF = in_batches(nn.Sequential(*below), x_NCHW)
    return hidden_NF.flatten(1), in_batches(last, hidden_NF).flatten()


def _principal(hidden_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the centre (F) and the first two principal axes (F, 2), signs fixed.

    A single feature has one axis; the other is then zero.
    """
    centre_F = hidden_NF.mean(0)
    _, _, axes_RF = torch.linalg.svd(hidden_NF - centre_F, full_matrices=False)
    axes_2F = torch.zeros(2, hidden_NF.shape[1])
    axes_2F[: len(axes_RF)] = axes_RF[:2]
    largest_21 = axes_2F.gather(1, axes_2F.abs().argmax(1, keepdim=True))
    return centre_F, (axes_2F * torch.where(largest_21 < 0, -1.0, 1.0)).T
