"""Small nets that segment, for the tests of solvers."""

import torch
from torch import Tensor, nn

from rootstock.common.nets.architectures import feature_shape, initial_modules
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec

TASK = TaskSpec(name="segmentation", kind="binary-segmentation")


def spec(split: str = "pool1", blocks: int = 3) -> ArchitectureSpec:
    return ArchitectureSpec(name="small-vgg", split=split, settings={"width": 4, "blocks": blocks})


SHAPE = feature_shape(spec())


ADAPTER = AdapterSpec(in_channels=SHAPE[0], out_channels=SHAPE[0])


def task_module(seed: int, of: ArchitectureSpec | None = None) -> nn.Sequential:
    """A module with random weights and biases, whose scores are not near zero."""
    module = initial_modules(of or spec(), [TASK], seed)[1]["segmentation"]
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        elif "score" in name or "skip" in name:
            parameter.data.mul_(20)
    return module


def features(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator).relu()
