"""Learning in steps that can be cut anywhere and carried on bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.training import (
    cosine,
    descend,
    optimiser_state,
    prefixed,
    restore_optimiser,
    under,
)

_OPTIMISER = "optimiser/"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast it is learned."""

    steps: int = 0
    rate: float = 1.0
    """Adam's at the start; it falls to 0 as half a cosine over the steps."""
    seed: int = 0
    decay: float = 0.0
    """Share of the distance to the start that a step of rate 1 takes back: decoupled weight decay
    towards the starting point."""


class Stepwise:
    """Adam (Kingma and Ba, 2015) on what is learned, with all that a cut run needs to carry on.

    `what` is how errors name what is learned; `tensors` are all that changes, by name, as views of
    the storage that is changed, and `parameters` what Adam moves.
    """

    def __init__(
        self,
        what: str,
        tensors: Mapping[str, Tensor],
        parameters: Iterable[Tensor],
        schedule: Schedule,
    ) -> None:
        self._what, self._tensors, self._schedule = what, dict(tensors), schedule
        self._steps, self._step = schedule.steps, 0
        # On the CPU whatever the device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(schedule.seed)
        # One parameter after the other: a step is then the same however they are grouped.
        self._optimiser = torch.optim.Adam(parameters, lr=schedule.rate, foreach=False)
        if schedule.decay > 0:
            own = self._optimiser.param_groups[0]["params"]
            starts = [parameter.detach().clone() for parameter in own]

            @torch.no_grad()
            def pull_to_the_start(optimiser: torch.optim.Optimizer, *_: Any) -> None:
                (group,) = optimiser.param_groups  # anew: restoring replaces it
                for parameter, start in zip(group["params"], starts, strict=True):
                    parameter.lerp_(start, min(1.0, group["lr"] * schedule.decay))

            self._optimiser.register_step_pre_hook(pull_to_the_start)

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self._step >= self._steps

    @property
    def steps(self) -> int:
        """How many steps it takes in all, as far as that is decided."""
        return self._steps

    def state(self) -> dict[str, Tensor]:
        """Return all that changes, as plain tensors.

        What does not change (modules, samples, settings) follows from what the constructor is
        given; with the same there, `restore` carries on bit for bit.
        """
        return {
            **{name: tensor.detach().clone() for name, tensor in self._tensors.items()},
            **prefixed(_OPTIMISER, optimiser_state(self._optimiser)),
            "step": torch.tensor(self._step, dtype=torch.int64),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """Carry on from a state; return the same object."""
        expected = {**self._tensors, "step": torch.tensor(0), "generator": state.get("generator")}
        given = {k: v for k, v in state.items() if not k.startswith(_OPTIMISER)}
        if given.keys() != expected.keys() or any(
            given[name].shape != tensor.shape for name, tensor in self._tensors.items()
        ):
            raise self._of_another()
        step = int(state["step"])
        if not 0 <= step <= self._steps:
            raise TransplantError(
                f"the state was saved at step {step} of a run longer than {self._steps} steps; use "
                "the settings that it was saved with"
            )
        try:
            restore_optimiser(self._optimiser, under(_OPTIMISER, state))
            self._generator.set_state(state["generator"].cpu())
        except (ValueError, RuntimeError) as error:
            raise self._of_another() from error
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(state[name])
        self._step = step
        return self

    def _of_another(self) -> TransplantError:
        return TransplantError(
            f"the state was saved for another {self._what}; start anew, or with the settings that "
            "it was saved with"
        )

    def _require_left(self) -> None:
        if self.done:
            raise TransplantError(
                f"{self._what}: all {self._steps} steps are taken; ask for more in the settings"
            )

    def _descend(self, loss: Tensor) -> None:
        if not math.isfinite(float(loss.detach())):
            raise TransplantError(
                f"{self._what}: the loss is {float(loss.detach())} at step {self._step + 1}; lower "
                "the learning rate, or check what is learned from"
            )
        descend(self._optimiser, loss, self._schedule.rate * cosine(self._step, self._steps))
        self._step += 1


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


class Learning(Stepwise):
    """An adapter and how it is learned; as it is here, one that is solved for and takes no steps.

    `adapter` is the start, changed in place, and `report` numbers of the start.
    """

    def __init__(
        self,
        adapter: Adapter,
        report: Mapping[str, float] = MappingProxyType({}),
        schedule: Schedule = Schedule(),  # frozen
    ) -> None:
        tensors = prefixed("adapter/", adapter.state_dict())
        super().__init__("adapter", tensors, adapter.parameters(), schedule)
        self._adapter = adapter.eval()
        self._report = dict(report)

    @property
    def adapter(self) -> Adapter:
        """The adapter as it is."""
        return self._adapter

    @property
    def report(self) -> dict[str, float]:
        """Numbers that say how it went, by name; the closed form's where it begins with one."""
        return dict(self._report)

    @property
    def without(self) -> str:
        """What a method does without, and why; empty where there is nothing."""
        return ""

    def step(self) -> StepRecord:
        """Take one step; TransplantError if all are taken, or the loss is not finite."""
        raise TransplantError("this adapter is solved for; it takes no steps")
