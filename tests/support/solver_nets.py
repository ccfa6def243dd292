"""Small nets for the tests of solvers."""

from __future__ import annotations

import torch
from torch import nn

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.nets.architectures import feature_shape, initial_modules
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec

SPEC = ArchitectureSpec(name="small-vgg", split="pool2", settings={"width": 4})
SHAPE = feature_shape(SPEC)


def task_module(seed: int = 0) -> nn.Sequential:
    """Return a task module with random weights and biases."""
    module = initial_modules(SPEC, [TaskSpec(name="classification")], seed)[1]["classification"]
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    # The plan's small last layer would make every loss start, and in few steps stay, near ln 2.
    module.get_parameter("fc7.weight").data.mul_(30)
    return module


def shuffled(module: nn.Sequential, permutation: torch.Tensor) -> nn.Sequential:
    """Return a copy whose input channels are reordered: g'(x) = g(x[:, permutation])."""
    copy = task_module()
    copy.load_state_dict(module.state_dict())
    first = copy.get_submodule("conv3_1")
    assert isinstance(first, nn.Conv2d)
    first.weight.data = first.weight.data[:, torch.argsort(permutation)]
    return copy


def problem(teacher: int = 1, student: int = 1, beta: float = 1.0) -> TransplantProblem:
    return TransplantProblem(task_module(teacher), task_module(student), SHAPE, beta)


def adapter_spec(convs: int = 1, kernel: int = 1) -> AdapterSpec:
    channels = SHAPE[0]
    return AdapterSpec(in_channels=channels, out_channels=channels, convs=convs, kernel=kernel)


def features(count: int, seed: int = 0) -> torch.Tensor:
    """Return x (N, C, H, W), not negative, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator).relu()
