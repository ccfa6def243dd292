"""Adam with all of its state in named tensors, so that a checkpoint is a plain safetensors file.

PyTorch's own keeps its state by parameter index inside nested dictionaries that need pickling.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
"""The values of the Adam paper."""


class Adam:
    """Adam (Kingma and Ba, 2015) with decoupled decay towards the starting point.

    Parameters
    ----------
    parameters
        What is learned, by name; changed in place by `update`.
    weight_decay
        Share of the distance to the start that a step of rate 1 would take back.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self._weight_decay = weight_decay
        self._start = {name: p.detach().clone() for name, p in parameters.items()}
        self._mean = {name: torch.zeros_like(p) for name, p in self._start.items()}
        self._square = {name: torch.zeros_like(p) for name, p in self._start.items()}
        self._count = 0

    def update(self, gradients: Mapping[str, Tensor | None], rate: float) -> None:
        """Move every parameter; None leaves one where it is (D' holds no bias)."""
        self._count += 1
        unbias_1, unbias_2 = 1 - _BETA_1**self._count, 1 - _BETA_2**self._count
        with torch.no_grad():
            for name, gradient in gradients.items():
                if gradient is None:
                    continue
                parameter, mean, square = (
                    self.parameters[name],
                    self._mean[name],
                    self._square[name],
                )
                if self._weight_decay > 0:
                    parameter.lerp_(self._start[name], min(1.0, rate * self._weight_decay))
                mean.lerp_(gradient, 1 - _BETA_1)
                square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
                scale = (square / unbias_2).sqrt_().add_(_EPSILON)
                parameter.addcdiv_(mean, scale, value=-rate / unbias_1)

    def state(self) -> dict[str, Tensor]:
        """Return moments, starting point and count of updates, by name."""
        groups = {"start": self._start, "mean": self._mean, "square": self._square}
        tensors = {f"{kind}/{k}": v for kind, group in groups.items() for k, v in group.items()}
        return {**tensors, "count": torch.tensor(self._count, dtype=torch.int64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Carry on from a state of the same parameters."""
        for kind, group in (("start", self._start), ("mean", self._mean), ("square", self._square)):
            for name, tensor in group.items():
                tensor.copy_(state[f"{kind}/{name}"])
        self._count = int(state["count"])
