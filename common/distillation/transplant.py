"""The input of every method, and the adapters that learning starts from.

Shapes: N samples, C channels of x = f(I), M channels of h(x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rootstock.common.distillation.auto.dream import DreamSource
from rootstock.common.distillation.problem import Samples, TransplantProblem, logits
from rootstock.common.distillation.settings import MethodSettings, Start
from rootstock.common.distillation.solvers.biases import bias_from_means
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.distillation.solvers.matching import matched
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.feature_moments import FeatureMoments
from rootstock.common.nets.spec import AdapterSpec, Shape
from rootstock.common.nets.training import in_batches


@dataclass(frozen=True)
class Transplant:
    """All that a method may use."""

    problem: TransplantProblem
    spec: AdapterSpec
    samples: Samples | None = None
    permutation_C: Tensor | None = None
    """The reorder layer; None leaves channels as they are."""
    means: tuple[Tensor, Tensor] | None = None
    """Channel means of x (C) and of f_S(I) (M), if labs shipped them: biases of the closed form."""
    source: DreamSource | None = None
    """What images can be dreamed from, if the lab shipped its statistics."""
    moments: FeatureMoments | None = None
    """What features can be drawn from, if the lab shipped its features' moments."""
    category_module: nn.Sequential | None = None
    """f, and (C, H, W) of the images that it takes: where features of synthetic images come
    from."""
    image_shape: Shape | None = None
    images_NCHW: Tensor | None = None
    """The samples' images as f takes them, and whether a mirrored one shows the same thing: where
    more features come from than the samples' own."""
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.category_module is not None:
            self.category_module.eval().requires_grad_(False)
        if self.images_NCHW is None:
            return
        if self.category_module is None or self.samples is None:
            raise TransplantError(
                "images of samples are of use with f and with the samples' labels"
            )
        if len(self.images_NCHW) != len(self.samples.labels_N):
            raise TransplantError(
                f"there are {len(self.images_NCHW)} images and {len(self.samples.labels_N)} "
                "samples; give each sample's image once, in the same order"
            )


def starting_adapter(
    transplant: Transplant, start: Start, settings: MethodSettings
) -> tuple[Adapter, dict[str, float]]:
    """Return the adapter that learning begins with, and the closed form's numbers if it is one."""
    drawn = settings.learning.drawn()
    if start == "closed-form":
        adapter, report = closed_form(
            transplant.problem,
            transplant.spec,
            drawn,
            ridge=settings.ridge,
            permutation_C=transplant.permutation_C,
        )
        if transplant.means is not None:
            bias_from_means(adapter, *transplant.means)
        return adapter, report.numbers()
    if start == "matched":
        if drawn.policy == "exp3":  # no masks, and those are what tells channels apart
            drawn = replace(drawn, policy="exp2")
        adapter, _ = matched(
            transplant.problem, transplant.spec, drawn, permutation_C=transplant.permutation_C
        )
        return adapter, {}
    adapter = transplant.problem.identity_start(transplant.spec, transplant.permutation_C)
    if start == "random":
        adapter.random_start(torch.Generator().manual_seed(drawn.seed))
    return adapter, {}


def soft_labels(problem: TransplantProblem, features_NCHW: Tensor) -> Tensor:
    """Return σ(y_T) (N), or (N, H, W), at features: what the teacher would have said."""
    return torch.sigmoid(logits(in_batches(problem.teacher_task, features_NCHW)))
