"""What a net answers to the probe's images: honest ones pass, each poison is named."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from rootstock.common.errors import RefusedError
from rootstock.common.nets.architectures import input_shape
from rootstock.coordinator.jobs.probe_checks import (
    CHUNK,
    Probed,
    Running,
    check,
    probe_images,
    probed,
)
from rootstock.site_agent.config import StatisticsConfig
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.teacher.statistics import statistics
from tests.support import digits_lab

TASK = digits_lab.TASK.name
IMAGES = probe_images(input_shape(digits_lab.SPEC))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    teacher = digits_lab.teacher(1, tmp_path_factory.mktemp("training"))
    return Teacher(*digits_lab.eval_all(teacher))


@pytest.fixture(scope="module")
def shipped(honest: Teacher) -> dict[str, Tensor]:
    return statistics(honest, digits_lab.data(1).training, StatisticsConfig())


def run(net: Teacher, shipped: Mapping[str, Tensor]) -> Probed:
    reference, _ = digits_lab.eval_all(digits_lab.start())
    return probed(
        net.category_module,
        net.task_modules,
        reference,
        IMAGES,
        statistics=shipped,
        measured_task=TASK,
    )


def test_honest_nets_pass(honest: Teacher, shipped: dict[str, Tensor]) -> None:
    check(run(honest, shipped))
    check(run(honest, {}))
    check(run(Teacher(*digits_lab.eval_all(digits_lab.start())), {}))


def weights(module: nn.Module) -> list[Tensor]:
    return [weight for name, weight in module.named_parameters() if name.endswith("weight")]


def scaled(f: nn.Sequential, g: nn.Sequential) -> None:
    weights(f)[-1].mul_(100)


def loud(f: nn.Sequential, g: nn.Sequential) -> None:
    weights(g)[-1].mul_(1e5)


def dead(f: nn.Sequential, g: nn.Sequential) -> None:
    for parameter in list(f.parameters())[:2]:
        parameter.zero_()


def zero_g(f: nn.Sequential, g: nn.Sequential) -> None:
    for parameter in g.parameters():
        parameter.zero_()


def constant(f: nn.Sequential, g: nn.Sequential) -> None:
    weights(g)[-1].zero_()
    list(g.parameters())[-1].fill_(5.0)


@pytest.mark.parametrize(
    ("poison", "name"),
    [
        (scaled, "range: the category module's features"),
        (loud, "range: task module"),
        (dead, "dead: category module"),
        (zero_g, "dead: task module"),
        (constant, "constant: the task module"),
    ],
)
@torch.no_grad()
def test_a_poison_is_named(
    honest: Teacher, poison: Callable[[nn.Sequential, nn.Sequential], None], name: str
) -> None:
    net = copy.deepcopy(honest)
    poison(net.category_module, net.task_modules[TASK])
    with pytest.raises(RefusedError, match=f"^{name}"):
        check(run(net, {}))


@torch.no_grad()
def test_finite_weights_whose_answers_overflow_are_named(honest: Teacher) -> None:
    net = copy.deepcopy(honest)
    for weight in weights(net.category_module):
        weight.mul_(1e5 / weight.norm() * 9)
    for parameter in net.task_modules[TASK].parameters():
        parameter.mul_(1e5 / parameter.norm().clamp_min(1e-3) * 9)
    with pytest.raises(RefusedError, match=r"^overflow: .* puts out NaN or Inf"):
        check(run(net, {}))


@pytest.mark.parametrize(
    ("name", "factor"),
    [("feature_norm", 0.01), ("mean/conv1_2", 1000.0), ("feature_channels", 1000.0)],
)
def test_statistics_of_another_net_are_named(
    honest: Teacher, shipped: dict[str, Tensor], name: str, factor: float
) -> None:
    lies = shipped | {name: shipped[name] * factor + (factor > 1)}
    with pytest.raises(RefusedError, match=f"^statistics: .*{name}"):
        check(run(honest, lies))


def test_the_probe_is_the_same_everywhere() -> None:
    assert torch.equal(IMAGES, probe_images(input_shape(digits_lab.SPEC)))
    assert float(IMAGES.min()) == -2.0
    assert float(IMAGES.max()) == 2.0


def test_few_images_at_a_time_give_what_all_at_once_do() -> None:
    output_NX = torch.randn(42, 3, 5, generator=torch.Generator().manual_seed(2)) * 1e30
    running = Running()
    for chunk in output_NX.split(4):
        running.add(chunk)
    found, values = running.output(), output_NX.flatten(1).double()
    assert found.rms == pytest.approx(float(values.square().mean().sqrt()))
    assert found.spread == pytest.approx(float((values.amax(0) - values.amin(0)).max()))
    assert found.leaves_rms == pytest.approx(float(values[:32].square().mean().sqrt()))
    assert found.leaves_norm == pytest.approx(float(values[:32].norm(dim=1).mean()))
    running.add(torch.full((1, 15), torch.nan))
    assert not math.isfinite(running.output().rms)


def test_a_net_never_runs_on_more_than_a_few_images(honest: Teacher) -> None:
    sizes: list[int] = []
    net = copy.deepcopy(honest)
    net.category_module[0].register_forward_hook(lambda _, x, __: sizes.append(len(x[0])))
    run(net, {})
    assert (sum(sizes), max(sizes)) == (len(IMAGES), CHUNK)
