from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rootstock.common.nets.training import (
    at_once,
    cosine,
    descend,
    in_batches,
    optimiser_state,
    restore_optimiser,
)
from rootstock.common.weights import safetensors_io

OPTIMISERS: list[Callable[[nn.Module], torch.optim.Optimizer]] = [
    lambda net: torch.optim.Adam(net.parameters(), lr=0.01, foreach=False),
    lambda net: torch.optim.AdamW(net.parameters(), lr=0.01),
    lambda net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def steps(module: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        descend(optimiser, module(x).square().mean(), 0.05 * cosine(step, 10))


def state(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.state_dict().values()]


@pytest.mark.parametrize("optimiser_of", OPTIMISERS)
def test_an_optimiser_kept_in_a_file_goes_on_bit_for_bit(
    optimiser_of: Callable[[nn.Module], torch.optim.Optimizer], tmp_path: Path
) -> None:
    whole = net()
    steps(whole, optimiser_of(whole), 0, 10)
    cut = net()
    optimiser = optimiser_of(cut)
    steps(cut, optimiser, 0, 4)
    safetensors_io.write(tmp_path / "state", optimiser_state(optimiser))
    resumed = net()
    resumed.load_state_dict(cut.state_dict())
    again = optimiser_of(resumed)
    read = safetensors.torch.load_file(tmp_path / "state")
    restore_optimiser(again, read)
    kept = {name: value.clone() for name, value in read.items()}
    steps(resumed, again, 4, 10)
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(resumed), strict=True))
    assert all(torch.equal(value, kept[name]) for name, value in read.items()), "not the caller's"


@pytest.mark.parametrize(
    ("tensors", "rule"),
    [
        ({"4/exp_avg": torch.zeros(3)}, "no state of an optimiser of 4 parameters"),
        ({"x/exp_avg": torch.zeros(3)}, "no state of an optimiser"),
        ({"0/exp_avg": torch.zeros(3)}, r"has shape \(3,\), the parameter has \(4, 3\)"),
    ],
)
def test_another_optimisers_state_is_refused(tensors: dict[str, Tensor], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        restore_optimiser(torch.optim.Adam(net().parameters()), tensors)


def test_a_step_reaches_the_optimisers_own_parameters_alone() -> None:
    module, below = net(), nn.Linear(3, 3)
    groups: list[dict[str, Any]] = [
        {"params": module[0].parameters(), "factor": 10.0},
        {"params": module[2].parameters()},
    ]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    descend(optimiser, module(below(torch.ones(2, 3))).sum(), 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [5.0, 0.5]
    assert below.weight.grad is None
    assert module[0].weight.grad is not None


def test_batches_are_put_together_in_order() -> None:
    x_NCHW = torch.arange(300.0).reshape(300, 1, 1, 1)
    out = in_batches(nn.Flatten(), x_NCHW)
    assert torch.equal(out, x_NCHW.flatten(1))
    assert not in_batches(nn.Conv2d(1, 1, 1), x_NCHW).requires_grad


@pytest.mark.parametrize(
    ("side", "most", "count"), [(64, 256, 256), (64, 128, 128), (224, 256, 20), (4096, 256, 1)]
)
def test_large_images_go_through_a_net_in_smaller_parts(side: int, most: int, count: int) -> None:
    x_NCHW = torch.empty(1, 3, side, side)
    assert at_once(x_NCHW, most) == count
    assert at_once(x_NCHW[:0], most) == most


def test_a_frozen_pass_is_one_whatever_its_parts() -> None:
    seen: list[int] = []
    net = nn.Conv2d(3, 2, 3, stride=8)
    net.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    x_NCHW = torch.rand(45, 3, 224, 224)
    assert torch.allclose(in_batches(net, x_NCHW), net(x_NCHW), atol=1e-6)
    assert seen[:3] == [20, 20, 5]
