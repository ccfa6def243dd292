"""Learn an adapter step by step: back-distillation (paper, Eq. 3), and direct-learn, its baseline.

    Loss = L(y_S, y*) + λ ‖α D'_S − D'_T‖²,   L binary cross-entropy of y_S = g_S(h(x)).

Without samples the task loss is left out; with λ = 0 the second term is, which is direct-learn and
also how a lab refines an adapter on all its private samples.

V = J'_gS^T G and D'_T hold no adapter weight (METHODS 1a): both are computed once, without a graph,
over a pool of draws. A step then needs the adapter's own adjoint and, for the task loss, one pass
through g_S.

Shapes: N draws or samples, C channels of x, M channels of h(x), H/W height and width. For a
segmentation, outputs and labels (N) are (N, H, W): L is the mean over the labelled pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from rootstock.common.distillation.problem import (
    Samples,
    TransplantProblem,
    balanced,
    cross_entropy,
    logits,
)
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.settings import BackDistillationSettings
from rootstock.common.distillation.solvers.learning import Learning, Schedule, StepRecord
from rootstock.common.distillation.solvers.penalties import Penalty, PseudoGradientPenalty
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.training import some


class BackDistillation(Learning):
    """An adapter that is learned by back-distillation, from the start that it is given.

    Without samples the pseudo-gradients alone are learned from. A penalty stands in for their term,
    which the settings describe. The report is numbers of the start.
    """

    def __init__(
        self,
        problem: TransplantProblem,
        adapter: Adapter,
        samples: Samples | None,
        settings: BackDistillationSettings,
        penalty: Penalty | None = None,
        *,
        report: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        if samples is None and penalty is None and settings.distillation == 0:
            raise TransplantError(
                "there is nothing to learn from: give samples, or a distillation weight above 0"
            )
        schedule = Schedule(
            settings.steps, settings.learning_rate, settings.seed, settings.weight_decay
        )
        super().__init__(adapter, report, schedule)
        expected = (adapter.spec.in_channels, *problem.feature_shape[1:])
        if samples is not None and tuple(samples.features_NCHW.shape[1:]) != expected:
            raise TransplantError(
                f"samples have features of shape {tuple(samples.features_NCHW.shape[1:])} and the "
                f"adapter takes {expected}; compute them with the category module in question"
            )
        self._problem, self._settings = problem, settings
        self._samples = samples
        self._penalty = self._pseudo_gradients() if penalty is None else penalty

    def step(self) -> StepRecord:
        """Take one step."""
        self._require_left()
        adapter, zero = self._adapter, self._adapter.beta.new_zeros(())
        task = zero if self._samples is None else self._task_loss(self._samples)
        distillation = zero
        if self._penalty is not None:
            distillation = self._penalty.loss(adapter, self._generator)
        loss = task + distillation
        self._descend(loss)
        losses = (float(part.detach()) for part in (loss, task, distillation))
        return StepRecord(self._step, *losses)

    def _task_loss(self, samples: Samples) -> Tensor:
        features_NCHW, labels_N = some(
            self._settings.batch_size, self._generator, samples.features_NCHW, samples.labels_N
        )
        device = self._adapter.beta.device
        labels_N = labels_N.to(device)
        y_N = logits(self._problem.student_task(self._adapter(features_NCHW.to(device))))
        if y_N.shape != labels_N.shape:
            raise TransplantError(
                f"the task module answers with shape {tuple(y_N.shape)} and the labels have "
                f"{tuple(labels_N.shape)}; label every image of a classification, and every pixel "
                "of a segmentation"
            )
        weight_N = None
        if self._settings.balanced and labels_N.ndim == 1:
            share = float(samples.labels_N.float().mean())
            weight_N = balanced(labels_N, share) if 0 < share < 1 else torch.ones_like(labels_N)
        return cross_entropy(y_N, labels_N, weight_N)

    def _pseudo_gradients(self) -> Penalty | None:
        settings = self._settings
        if settings.distillation == 0:
            return None
        pool = DrawPool.filled(self._problem, self._adapter, settings.drawn(), settings.pool_bytes)
        return PseudoGradientPenalty(
            self._problem,
            pool,
            weight=settings.distillation,
            draws_per_step=settings.draws_per_step,
        )
