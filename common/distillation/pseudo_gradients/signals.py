"""Draws of G and x_rand, at which pseudo-gradients are taken (paper, section 3.2).

A draw holds, for each of N backward passes, G at the output and the dummy-2 masks. The same draw
serves teacher and student, so that their D' are comparable.

Shapes: N draws, O outputs, S side of an enlarged G, C channels, H/W height and width. At a map
(segmentation) a G of (O, S, S) is (O, H, W), of the output's own shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape, relu_maps
from rootstock.common.distillation.pseudo_gradients.rules import Shape
from rootstock.common.distillation.settings import Policy
from rootstock.common.errors import TransplantError

_POSITIVE_SHARE = 0.2
"""Exp. 2: x_rand is positive at 20% of the places."""


@dataclass(frozen=True)
class Draw:
    """N draws of G and of the masks."""

    G_NOSS: Tensor
    masks: dict[str, Tensor]
    """1(x_rand > 0), bool, (N, C, H, W) or (N, 1, H, W), by path of the ReLU."""

    def to(self, device: torch.device) -> Draw:
        """Return the draws on a device."""
        masks = {path: mask.to(device) for path, mask in self.masks.items()}
        return Draw(self.G_NOSS.to(device), masks)


@dataclass(frozen=True)
class Signals:
    """The source of draws for one pair of task modules.

    Draws are made on the CPU, whatever the device, so that a seed means the same everywhere.
    """

    policy: Policy
    G_shape: Shape
    """(O, S, S)."""
    maps: Mapping[str, Shape]
    """Gradient maps to mask, by path of the ReLU."""

    @classmethod
    def between(
        cls, problem: TransplantProblem, channels: int, *, policy: Policy, size: int
    ) -> Self:
        """Prepare draws that serve teacher and student alike.

        `channels` are M, which g_S takes. `size` counts in Exp. 2 alone: Exp. 1's G is a scalar, a
        map's has the map's size.
        """
        teacher_shape = problem.feature_shape
        student_shape = (channels, *teacher_shape[1:])
        outputs, *sides = output_shape(problem.teacher_task, teacher_shape)
        student_outputs = output_shape(problem.student_task, student_shape)
        if student_outputs != (outputs, *sides):
            raise TransplantError(
                "teacher and student task modules differ in their number of outputs: "
                f"{(outputs, *sides)} and {student_outputs}; transplant onto a task module of the "
                "same task and image size"
            )
        if policy == "exp3":
            if not sides:
                raise TransplantError(
                    "policy 'exp3' draws G for the pixels of a map, and this task module gives "
                    f"{outputs} numbers an image; use policy 'exp1' or 'exp2'"
                )
            return cls(policy, (outputs, *sides), {})
        side = 1 if policy == "exp1" else size
        teacher = relu_maps(problem.teacher_task, input_shape_CHW=teacher_shape, size=side)
        student = relu_maps(problem.student_task, input_shape_CHW=student_shape, size=side)
        if policy == "exp2":
            teacher, student = _lowest(teacher), _lowest(student)
        if teacher != student:
            path = sorted(set(teacher.items()) ^ set(student.items()))[0][0]
            raise TransplantError(
                f"teacher and student cannot share a mask at ReLU '{path}' (policy '{policy}'): "
                f"their gradient maps are {teacher.get(path)} and {student.get(path)}; use task "
                "modules of one architecture, or policy 'exp2', which masks only the lowest ReLU"
            )
        return cls(policy, (outputs, *(sides or (side, side))), teacher)

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        """Draw N = `count` times.

        One after the other, so that a sequence of draws does not depend on how it is batched.
        """
        draws = [self._draw_one(generator) for _ in range(count)]
        masks = {path: torch.stack([mask[path] for _, mask in draws]) for path in self.maps}
        return Draw(torch.stack([G for G, _ in draws]), masks)

    def _draw_one(self, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return G (O, S, S) and masks (C, H, W)."""
        if self.policy == "exp1":
            masks = {
                path: torch.rand(map_shape, generator=generator) > 0.5
                for path, map_shape in self.maps.items()
            }
            return torch.ones(self.G_shape), masks
        G_OSS = 2 * torch.rand(self.G_shape, generator=generator) - 1
        masks = {path: _spatial_mask(map_shape, generator) for path, map_shape in self.maps.items()}
        return G_OSS, masks


def _lowest(maps: Mapping[str, Shape]) -> dict[str, Shape]:
    """Keep the lowest ReLU, as one map for all its channels."""
    return {path: (1, *shape[1:]) for path, shape in list(maps.items())[:1]}


def _spatial_mask(shape: Shape, generator: torch.Generator) -> Tensor:
    """Return a mask (1, H, W) with exactly 20% of the places positive (at least one)."""
    x_rand = torch.rand(torch.Size(shape).numel(), generator=generator)
    positive = max(1, round(_POSITIVE_SHARE * len(x_rand)))
    return (x_rand <= x_rand.kthvalue(positive).values).reshape(shape)
