"""Images dreamed from a teacher net and shipped statistics: samples where a lab gives none.

A lab ships, with its weights, mean and variance of every convolution's output over its data. Images
are optimised until they have those moments, until the teacher is sure of its answers, half of them
"category", and until they are smooth (METHODS 1i; after Yin et al., 2020, "Dreaming to Distill").

Shapes: N images, C channels of a layer's output, H/W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.distillation.auto.images import dead_leaves
from rootstock.common.distillation.settings import DreamSettings
from rootstock.common.distillation.solvers.learning import Schedule, Stepwise
from rootstock.common.errors import TransplantError
from rootstock.common.nets.spec import Shape
from rootstock.common.nets.training import watched

_FLOOR = 1e-2
"""Least variance of a channel, in units of its layer's mean: dead ones would weigh infinitely."""


@dataclass(frozen=True)
class DreamSource:
    """Frozen f and g_T, and the moments that images dreamed from them are to have.

    `input_shape` is (C, H, W) of images. Statistics are `mean/<layer>` and `variance/<layer>` (C)
    of layers of f and g_T, as shipped; others are not looked at, and at least one layer needs both.
    """

    category_module: nn.Sequential
    teacher_task: nn.Sequential
    input_shape: Shape
    statistics: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for module in (self.category_module, self.teacher_task):
            module.eval().requires_grad_(False)
        for name in self.layers():
            mean_C, variance_C = self.wanted(name)
            total = float(variance_C.double().sum())
            if not (0 < total < math.inf and bool(torch.isfinite(mean_C).all())):
                raise TransplantError(
                    f"statistics of layer '{name}' have variances that sum to {total:g}, or means "
                    "that are not finite; a layer that never changes says nothing of its images"
                )
        if not self.layers():
            raise TransplantError(
                "there is no layer whose mean and variance were both shipped, so there is nothing "
                "to dream from; ask the lab to switch channel means and variances on"
            )

    def layers(self) -> dict[str, nn.Module]:
        """Return the layers whose mean and variance were shipped, by name."""
        known = dict(self.teacher_task.named_modules())
        known |= self.category_module.named_modules()  # of layers of one name, labs measure f's
        found: dict[str, nn.Module] = {}
        for key in self.statistics:
            kind, _, name = key.partition("/")
            if kind != "mean" or f"variance/{name}" not in self.statistics:
                continue
            if name not in known:
                raise TransplantError(
                    f"statistics name layer '{name}', which neither f nor g has; "
                    "they belong to another architecture or split"
                )
            found[name] = known[name]
        return found

    def wanted(self, name: str) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C) that a layer is to have."""
        return self.statistics[f"mean/{name}"], self.statistics[f"variance/{name}"]


@dataclass(frozen=True)
class DreamRecord:
    """Losses of one step, before its update, or of the images as they are."""

    step: int
    loss: float
    class_loss: float
    """Cross-entropy of the teacher's output to the side that each image is to show."""
    statistics_loss: float
    """Mean over layers and channels of squared differences of mean and of deviation, each in units
    of the shipped variance."""
    smoothness: float


class Dream(Stepwise):
    """Images being dreamed; statistics that do not fit their layers are refused."""

    def __init__(self, source: DreamSource, settings: DreamSettings) -> None:
        self._source, self._settings = source, settings
        device = next(source.category_module.parameters()).device
        # From dead leaves rather than noise: with edges to begin with, adapters did better on the
        # same steps (CIFAR-10, horse onto dog: 14.8 against 16.1% error, teacher 12.6).
        _, height, width = source.input_shape
        images = max(4, min(settings.images, settings.max_pixels // (height * width)))
        generator = torch.Generator().manual_seed(settings.seed)
        start = dead_leaves(images, source.input_shape, generator)
        self._images = nn.Parameter(start.to(device))
        super().__init__(
            "dream",
            {"images": self._images.detach()},
            [self._images],
            Schedule(settings.steps, settings.learning_rate, settings.seed),
        )
        self._generator.set_state(generator.get_state())
        shown = max(1, min(images - 1, round(settings.share * images)))
        self._targets_N = (torch.arange(images, device=device) < shown).float()
        self._wanted = {
            name: tuple(moment.to(device) for moment in source.wanted(name))
            for name in source.layers()
        }
        self.measure()  # statistics that do not fit are an error now, not at the first step

    def images(self) -> Tensor:
        """Return the images (N, C, H, W) as they are."""
        return self._images.detach()

    def step(self) -> DreamRecord:
        """Take one step."""
        self._require_left()
        jitter = self._settings.jitter
        shift = torch.randint(-jitter, jitter + 1, (2,), generator=self._generator).tolist()
        loss, record = self._losses(torch.roll(self._images, shift, (2, 3)), self._step + 1)
        self._descend(loss)
        return record

    def measure(self) -> DreamRecord:
        """Return the losses of the images as they are."""
        with torch.no_grad():
            return self._losses(self._images, self._step)[1]

    def require_converged(self) -> DreamRecord:
        """Return the losses of images that may be used.

        Refused are those of which the teacher is not sure, or that lack the shipped moments.
        """
        record, settings = self.measure(), self._settings
        for what, value, limit in (
            ("class", record.class_loss, settings.max_class_loss),
            ("statistics", record.statistics_loss, settings.max_statistics_loss),
        ):
            if not value <= limit:
                raise TransplantError(
                    f"the dream did not converge: its {what} loss is {value:.3g} after "
                    f"{record.step} steps, the limit is {limit:g}; take more steps, or a method "
                    "that does not dream"
                )
        return record

    def _losses(self, images_NCHW: Tensor, step: int) -> tuple[Tensor, DreamRecord]:
        settings = self._settings
        with moments(self._source.layers()) as found:
            features_NCHW = self._source.category_module(images_NCHW)
            y_N = self._source.teacher_task(features_NCHW).flatten()
        if len(y_N) != len(self._targets_N):
            raise TransplantError(
                f"a dream needs one answer an image, and the task module gives "
                f"{len(y_N) // len(self._targets_N)}; use a method that does not dream"
            )
        class_loss = F.binary_cross_entropy_with_logits(y_N, self._targets_N)
        statistics_loss = torch.stack(
            [distance(name, found[name], wanted) for name, wanted in self._wanted.items()]
        ).mean()
        smoothness = sum(
            (images_NCHW.diff(dim=side).square().mean() for side in (2, 3)), torch.zeros(())
        )
        loss = (
            settings.confidence * class_loss
            + settings.statistics * statistics_loss
            + settings.smoothness * smoothness
        )
        parts = (loss, class_loss, statistics_loss, smoothness)
        return loss, DreamRecord(step, *(float(part.detach()) for part in parts))


@contextmanager
def moments(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect mean and variance (C) of layers' outputs over images and places."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def into(name: str, output_NCHW: Tensor) -> None:
        variance_C, mean_C = torch.var_mean(output_NCHW, (0, 2, 3), correction=0)
        found[name] = (mean_C, variance_C)

    with watched(layers, into):
        yield found


def distance(name: str, found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """Return how far a layer's moments are from those wanted, in units of the wanted variance."""
    if any(f.shape != w.shape for f, w in zip(found, wanted, strict=True)):
        raise TransplantError(
            f"statistics of layer '{name}' have shape {tuple(wanted[0].shape)} and it has "
            f"{found[0].shape[0]} channels; they belong to another architecture"
        )
    (mean_C, variance_C), (target_C, target_variance_C) = found, wanted
    unit_C = target_variance_C + _FLOOR * target_variance_C.mean() + torch.finfo(mean_C.dtype).tiny
    deviation_C = (variance_C + 1e-12).sqrt() - target_variance_C.sqrt()
    return (((mean_C - target_C).square() + deviation_C.square()) / unit_C).mean()
