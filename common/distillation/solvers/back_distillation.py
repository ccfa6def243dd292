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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from rootstock.common.distillation.problem import Samples, TransplantProblem, logits
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.settings import BackDistillationSettings
from rootstock.common.distillation.solvers.optimiser import Adam
from rootstock.common.distillation.solvers.penalties import Penalty, PseudoGradientPenalty
from rootstock.common.distillation.task_loss import cross_entropy
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter


@dataclass(frozen=True)
class StepRecord:
    """Losses of one step, before its update."""

    step: int
    """Counts from 1."""
    loss: float
    task_loss: float
    """0 without samples."""
    distillation_loss: float
    """λ ‖α D'_S − D'_T‖², mean over the step's draws; 0 where λ is."""


class BackDistillation:
    """One adapter being learned.

    Parameters
    ----------
    problem
        The frozen task modules and the shape of x.
    adapter
        The start, from `closed_form`, `Adapter.identity_start` or `random_start`; changed in place.
    samples
        x and labels, or None to distil without any.
    settings
        Steps, rates, draws, seed.
    penalty
        Stands in for the term of pseudo-gradients, which the settings describe.
    report
        Numbers of the start, kept beside what is learned from it.

    Raises
    ------
    TransplantError
        If there is neither a sample nor a distillation loss to learn from, or shapes do not fit.
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
        expected = (adapter.spec.in_channels, *problem.feature_shape[1:])
        if samples is not None and tuple(samples.features_NCHW.shape[1:]) != expected:
            raise TransplantError(
                f"samples have features of shape {tuple(samples.features_NCHW.shape[1:])} and the "
                f"adapter takes {expected}; compute them with the category module in question"
            )
        self._problem, self._settings = problem, settings
        self._adapter = adapter.eval()
        self._samples = samples
        self._report = dict(report)
        self._step = 0
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._optimiser = Adam(dict(adapter.named_parameters()), weight_decay=settings.weight_decay)
        self._penalty = self._pseudo_gradients() if penalty is None else penalty

    @property
    def adapter(self) -> Adapter:
        """The adapter as it stands."""
        return self._adapter

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self._step >= self._settings.steps

    @property
    def steps(self) -> int:
        """How many steps it takes in all."""
        return self._settings.steps

    @property
    def report(self) -> dict[str, float]:
        """Numbers of its start."""
        return dict(self._report)

    def step(self) -> StepRecord:
        """Take one step.

        Raises
        ------
        TransplantError
            If all steps are taken, or the loss is not finite.
        """
        if self.done:
            raise TransplantError(
                f"all {self._settings.steps} steps are taken; ask for more steps in the settings"
            )
        task_loss = self._task_loss()
        distillation_loss = self._distillation_loss()
        loss = task_loss + distillation_loss
        if not math.isfinite(float(loss.detach())):
            raise TransplantError(
                f"the loss is {float(loss.detach())} at step {self._step + 1}; "
                "lower the learning rate, or check the samples' features"
            )
        parameters = self._optimiser.parameters
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        progress = self._step / self._settings.steps
        rate = self._settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        self._optimiser.update(dict(zip(parameters, gradients, strict=True)), rate)
        self._step += 1
        return StepRecord(
            self._step,
            float(loss.detach()),
            float(task_loss.detach()),
            float(distillation_loss.detach()),
        )

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors: adapter, optimiser, step, random state.

        What does not change (modules, samples, settings, the pool of draws) follows from what the
        constructor is given; with the same there, `restore` carries on bit for bit.
        """
        adapter = {
            f"adapter/{k}": v.detach().clone() for k, v in self._adapter.state_dict().items()
        }
        optimiser = {f"optimiser/{k}": v.clone() for k, v in self._optimiser.state().items()}
        return {
            **adapter,
            **optimiser,
            "step": torch.tensor(self._step, dtype=torch.int64),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object.

        Raises
        ------
        TransplantError
            If the state belongs to another adapter or other settings.
        """
        expected = {name: tensor.shape for name, tensor in self.state().items()}
        if {name: tensor.shape for name, tensor in state.items()} != expected:
            raise TransplantError(
                "the state was saved for another adapter; start anew, or with the specification "
                "that it was saved with"
            )
        step = int(state["step"])
        if not 0 <= step <= self._settings.steps:
            raise TransplantError(
                f"the state was saved at step {step} of a run longer than {self._settings.steps} "
                "steps; use the settings that it was saved with"
            )
        self._adapter.load_state_dict(_under("adapter/", state))
        self._optimiser.restore(_under("optimiser/", state))
        self._step = step
        self._generator.set_state(state["generator"].cpu())
        return self

    def _task_loss(self) -> Tensor:
        samples = self._samples
        if samples is None:
            return self._adapter.beta.new_zeros(())
        features_NCHW, labels_N = samples.features_NCHW, samples.labels_N
        if len(labels_N) > self._settings.batch_size:
            order = torch.randperm(len(labels_N), generator=self._generator)
            chosen = order[: self._settings.batch_size].to(labels_N.device)
            features_NCHW, labels_N = features_NCHW[chosen], labels_N[chosen]
        device = self._adapter.beta.device
        labels_N = labels_N.to(device)
        y_N = logits(self._problem.student_task(self._adapter(features_NCHW.to(device))))
        if y_N.shape != labels_N.shape:
            raise TransplantError(
                f"the task module answers with shape {tuple(y_N.shape)} and the labels have "
                f"{tuple(labels_N.shape)}; label every image of a classification, and every pixel "
                "of a segmentation"
            )
        balanced = self._settings.balanced and labels_N.ndim == 1
        return cross_entropy(y_N, labels_N, self._sample_weights(labels_N) if balanced else None)

    def _sample_weights(self, labels_N: Tensor) -> Tensor:
        """Weigh category and rest alike, by their shares in all samples."""
        assert self._samples is not None  # noqa: S101  # called with samples alone
        share = float(self._samples.labels_N.float().mean())
        if not 0 < share < 1:
            return torch.ones_like(labels_N)
        # A soft label is partly category, partly rest.
        return labels_N * (0.5 / share) + (1 - labels_N) * (0.5 / (1 - share))

    def _pseudo_gradients(self) -> Penalty | None:
        settings = self._settings
        if settings.distillation == 0:
            return None
        pool = DrawPool.filled(
            self._problem,
            self._adapter,
            policy=settings.policy,
            size=settings.size,
            draws=settings.draws,
            max_bytes=settings.pool_bytes,
            seed=settings.seed,
        )
        return PseudoGradientPenalty(
            self._problem,
            pool,
            weight=settings.distillation,
            draws_per_step=settings.draws_per_step,
        )

    def _distillation_loss(self) -> Tensor:
        if self._penalty is None:
            return self._adapter.beta.new_zeros(())
        return self._penalty.loss(self._adapter, self._generator)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
