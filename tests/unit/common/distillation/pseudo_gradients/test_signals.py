from typing import Any

import pytest
import torch
from torch import nn

from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.pseudo_gradients.maps import PseudoGradients
from rootstock.common.distillation.pseudo_gradients.signals import Signals
from rootstock.common.errors import TransplantError
from tests.support.solver_nets import SHAPE, problem, task_module


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_exp1_has_unit_gradients_and_masks_at_every_relu() -> None:
    signals = Signals.between(problem(), SHAPE[0], policy="exp1", size=7)
    draw = signals.draw(64, generator())
    assert torch.equal(torch.ones(64, 1, 1, 1), draw.G_NOSS)
    assert list(draw.masks) == ["relu3_1", "relu3_2", "relu6"]
    assert draw.masks["relu3_1"].shape == (64, 16, 8, 8)
    assert draw.masks["relu6"].shape == (64, 32, 1, 1)
    assert float(draw.masks["relu3_1"].float().mean()) == pytest.approx(0.5, abs=0.01)


def test_exp2_masks_the_lowest_relu_alone_20_to_80_the_same_for_all_channels() -> None:
    signals = Signals.between(problem(), SHAPE[0], policy="exp2", size=3)
    draw = signals.draw(64, generator())
    assert draw.G_NOSS.shape == (64, 1, 3, 3)
    assert -1 <= float(draw.G_NOSS.min()) < -0.9
    assert 0.9 < float(draw.G_NOSS.max()) <= 1
    assert list(draw.masks) == ["relu3_1"]
    mask = draw.masks["relu3_1"]
    assert mask.shape == (64, 1, 12, 12)
    assert set(mask.flatten(1).sum(1).tolist()) == {29}, "20% of 144 places, in every draw"
    assert len({tuple(m.flatten().tolist()) for m in mask}) == 64


@pytest.mark.parametrize("policy", ["exp1", "exp2"])
def test_draws_follow_from_their_generator_alone(policy: Any) -> None:
    signals = Signals.between(problem(), SHAPE[0], policy=policy, size=2)
    one, other = (signals.draw(3, generator(5)) for _ in range(2))
    assert torch.equal(one.G_NOSS, other.G_NOSS)
    for path, mask in one.masks.items():
        assert torch.equal(mask, other.masks[path])
    third = signals.draw(3, generator(6))
    assert not all(torch.equal(mask, third.masks[path]) for path, mask in one.masks.items())


@pytest.mark.parametrize("policy", ["exp1", "exp2"])
def test_draws_do_not_depend_on_how_they_are_batched(policy: Any) -> None:
    signals = Signals.between(problem(), SHAPE[0], policy=policy, size=2)
    together, source = signals.draw(3, generator(5)), generator(5)
    apart = [signals.draw(count, source) for count in (1, 2)]
    assert torch.equal(together.G_NOSS, torch.cat([draw.G_NOSS for draw in apart]))
    for path, mask in together.masks.items():
        assert torch.equal(mask, torch.cat([draw.masks[path] for draw in apart]))


@pytest.mark.parametrize("policy", ["exp1", "exp2"])
def test_one_net_is_its_own_teacher(policy: Any) -> None:
    same = problem()
    signals = Signals.between(same, SHAPE[0], policy=policy, size=2)
    V, D_T = PseudoGradients(same, SHAPE[0], signals, draws=2)(signals.draw(2, generator()))
    assert torch.equal(V, D_T)
    assert not V.requires_grad
    assert float(V.abs().max()) > 0


def test_masks_cannot_be_shared_by_nets_with_other_relus() -> None:
    other = nn.Sequential(
        nn.Conv2d(SHAPE[0], 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 1)
    )
    mixed = TransplantProblem(task_module(), other, SHAPE)
    with pytest.raises(TransplantError, match=r"at ReLU '1' \(policy 'exp1'\).*exp2"):
        Signals.between(mixed, SHAPE[0], policy="exp1", size=1)


def test_tasks_with_other_outputs_do_not_fit() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 3))
    with pytest.raises(TransplantError, match="number of outputs"):
        Signals.between(
            TransplantProblem(task_module(), other, SHAPE), SHAPE[0], policy="exp1", size=1
        )


def test_a_problem_freezes_its_modules() -> None:
    teacher, student = task_module(1), task_module(2)
    TransplantProblem(teacher, student, SHAPE)
    for module in (teacher, student):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(beta: float) -> None:
    with pytest.raises(TransplantError, match="positive and finite"):
        problem(beta=beta)


def test_samples_must_agree_in_number() -> None:
    with pytest.raises(TransplantError, match="labels"):
        Samples(torch.zeros(3, *SHAPE), torch.zeros(2))
    with pytest.raises(TransplantError, match="N > 0"):
        Samples(torch.zeros(0, *SHAPE), torch.zeros(0))


@pytest.mark.parametrize("size", [1, 3])
def test_what_draws_have_in_common_is_worked_out_once_and_changes_nothing(size: int) -> None:
    """Exp. 2: above the lowest ReLU, D' is one linear map of G."""
    different = problem(teacher=1, student=2)
    signals = Signals.between(different, SHAPE[0], policy="exp2", size=size)
    source = generator()
    many = PseudoGradients(different, SHAPE[0], signals, draws=20)
    one = PseudoGradients(different, SHAPE[0], signals, draws=1)
    for count in (12, 8):
        draw = signals.draw(count, source)
        for fast, slow in zip(many(draw), one(draw), strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5 * float(slow.abs().max()))
