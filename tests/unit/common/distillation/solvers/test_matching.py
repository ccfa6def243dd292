"""Channels that correspond are found by pseudo-gradients, whatever order hides them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.settings import Draws
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.distillation.solvers.matching import matched
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from tests.support import segmentation_nets, solver_nets

CHANNELS = solver_nets.SHAPE[0]
EXP2 = Draws("exp2")
PERMUTATION = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(1))


def moved(module: nn.Sequential, by: float) -> nn.Sequential:
    """The module as another lab's training might have left it."""
    generator = torch.Generator().manual_seed(9)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += by * parameter.detach().std(correction=0) * noise
    return module


def drifted(by: float = 0.3) -> TransplantProblem:
    return TransplantProblem(
        solver_nets.task_module(1), moved(solver_nets.task_module(1), by), solver_nets.SHAPE
    )


def error(adapter: Adapter, x: Tensor) -> float:
    with torch.no_grad():
        return float((adapter(x) - x).norm() / x.norm())


@pytest.mark.parametrize(("convs", "kernel"), [(1, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize("policy", ["exp1", "exp2"])
def test_shuffled_channels_are_found_in_a_net_that_has_drifted(
    policy: Any, convs: int, kernel: int
) -> None:
    """Where least squares is off, the order is still exact."""
    spec = solver_nets.adapter_spec(convs, kernel)
    adapter, likeness = matched(drifted(), spec, Draws(policy), permutation_C=PERMUTATION)
    x = solver_nets.features(4)
    assert error(adapter, x) == 0
    assert 0.3 < likeness < 1
    solved, _ = closed_form(drifted(), spec, Draws(policy, 64), permutation_C=PERMUTATION)
    assert error(solved, x) > 0.05


def test_a_task_module_that_segments_is_matched_as_well() -> None:
    shape = segmentation_nets.SHAPE
    student = moved(segmentation_nets.task_module(1), 0.3)
    problem = TransplantProblem(segmentation_nets.task_module(1), student, shape)
    permutation = torch.tensor([2, 0, 3, 1])
    adapter, _ = matched(problem, segmentation_nets.ADAPTER, EXP2, permutation_C=permutation)
    assert error(adapter, segmentation_nets.features(3)) == 0


def test_likeness_says_whether_anything_corresponds() -> None:
    spec = solver_nets.adapter_spec()
    assert matched(solver_nets.problem(1, 1), spec, EXP2)[1] == pytest.approx(1)
    strangers = matched(solver_nets.problem(1, 2), spec, EXP2)[1]
    assert (
        strangers < matched(drifted(1.0), spec, EXP2)[1] < matched(drifted(0.3), spec, EXP2)[1] < 1
    )


def test_the_scale_is_betas() -> None:
    scaled = solver_nets.problem(1, 1, beta=0.25)
    x = solver_nets.features(2)
    adapter, _ = matched(scaled, solver_nets.adapter_spec(), EXP2)
    with torch.no_grad():
        assert torch.equal(adapter(x), 0.25 * x)


@pytest.mark.parametrize(("channels", "taken"), [(8, 5), (5, 8)])
def test_of_unequal_channels_the_smaller_number_is_matched(channels: int, taken: int) -> None:
    teacher, student = (
        nn.Sequential(nn.Conv2d(n, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 1))
        for n in (channels, taken)
    )
    problem = TransplantProblem(teacher, student, (channels, 4, 4))
    adapter, _ = matched(problem, AdapterSpec(in_channels=channels, out_channels=taken), EXP2)
    weight_MC = adapter.convolutions()[0].weight.detach()[:, :, 0, 0]
    assert weight_MC.shape == (taken, channels)
    assert float(weight_MC.sum()) == 5
    assert float(weight_MC.sum(0).max()) == float(weight_MC.sum(1).max()) == 1


def test_a_dead_task_module_is_refused() -> None:
    dead = solver_nets.task_module(1)
    dead.get_parameter("fc7.weight").data.zero_()
    problem = TransplantProblem(dead, solver_nets.task_module(2), solver_nets.SHAPE)
    with pytest.raises(TransplantError, match="zero or not finite"):
        matched(problem, solver_nets.adapter_spec(), EXP2)
