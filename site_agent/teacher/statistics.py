"""The named statistics that may travel with a teacher net, and no others.

N images, C channels, H/W height and width.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from rootstock.common.images import batches
from rootstock.common.nets.architectures import measured_layers
from rootstock.common.nets.feature_moments import MomentSums
from rootstock.common.nets.training import device_of, watched
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.data.images import ImageSet
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.scoring import BATCH
from rootstock.site_agent.state import check


class _Moments:
    """Sums of a layer's output per channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_C = torch.zeros(())
        self.squares_C = torch.zeros(())

    def add(self, output_NCHW: Tensor) -> None:
        values = output_NCHW.detach().to(torch.float64)
        self.count += values.shape[0] * values.shape[2] * values.shape[3]
        self.sum_C = self.sum_C + values.sum((0, 2, 3)).cpu()
        self.squares_C = self.squares_C + values.square().sum((0, 2, 3)).cpu()

    def mean(self) -> Tensor:
        return self.sum_C / self.count

    def variance(self) -> Tensor:
        return (self.squares_C / self.count - self.mean().square()).clamp_min(0)


@torch.no_grad()
def statistics(
    teacher: Teacher,
    images: ImageSet,
    config: StatisticsConfig,
    stop: threading.Event | None = None,
) -> dict[str, Tensor]:
    """Measure a trained net, in evaluation mode, on the lab's training images.

    Returns float32 tensors by name, none if all are switched off. `feature_norm` (1): E‖f(I)‖_F,
    which the rescale layer's β needs (Network Transplanting, section 4). `mean/<layer>` and
    `variance/<layer>` (C): of every channel of every conv's output before its ReLU, and of
    x = f(I) under the name of f's last layer, over images and pixels, the layer named as in the
    state dict; what a BatchNorm's running statistics would be (METHODS 1d, 1i). Task modules share
    their layers' names, so only those of `Teacher.measured_task` are measured. `feature_mean` and
    three covariances: `common.nets.feature_moments`.
    """
    wants_moments = config.channel_means or config.channel_variances
    with_features = config.with_moments(len(images))
    if not (wants_moments or config.feature_norm or with_features):
        return {}
    f, g = teacher.category_module, teacher.task_modules[teacher.measured_task]
    layers = measured_layers(f, g) if wants_moments else {}
    moments = {name: _Moments() for name in layers}
    norms, sums = 0.0, MomentSums()
    with watched(layers, lambda name, output_NCHW: moments[name].add(output_NCHW)):
        for x_NCHW in batches(images.images_NCHW, device_of(f), BATCH):
            check(stop)
            features_NCHW = f(x_NCHW)
            norms += float(features_NCHW.flatten(1).to(torch.float64).norm(dim=1).sum())
            if with_features:
                sums.add(features_NCHW)
            if wants_moments:
                g(features_NCHW)
    named: dict[str, Tensor] = {}
    if config.feature_norm:
        named["feature_norm"] = torch.tensor([norms / len(images)])
    for name, layer_moments in moments.items():
        if config.channel_means:
            named[f"mean/{name}"] = layer_moments.mean()
        if config.channel_variances:
            named[f"variance/{name}"] = layer_moments.variance()
    if with_features:
        named |= sums.moments()
    return {name: value.to(torch.float32) for name, value in named.items()}
