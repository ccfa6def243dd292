import pytest
import torch
from torch import nn

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.maps import PseudoGradients
from rootstock.common.distillation.pseudo_gradients.signals import Signals
from rootstock.common.distillation.settings import Draws, Policy
from rootstock.common.distillation.solvers.biases import (
    bias_from_means,
    feature_means,
    rectified_mean,
)
from rootstock.common.distillation.solvers.closed_form import closed_form, normal_equations
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import build_category_module
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec
from tests.support.solver_nets import SHAPE, SPEC, adapter_spec, features, problem, shuffled

CHANNELS = SHAPE[0]


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("policy", ["exp1", "exp2"])
@pytest.mark.parametrize(("convs", "kernel"), [(1, 1), (3, 1), (1, 3), (3, 3)])
@torch.no_grad()
def test_shuffled_channels_are_undone_without_any_image(
    policy: Policy, convs: int, kernel: int
) -> None:
    permutation = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(1))
    same = problem()
    adapter, report = closed_form(
        same,
        adapter_spec(convs, kernel),
        Draws(policy, 256),
        ridge=1e-12,
        permutation_C=permutation,
    )
    x = features(4)
    assert relative(adapter(x), x) < 1e-5
    assert relative(same.student_task(adapter(x)), same.teacher_task(x)) < 1e-5
    assert report.residual < 1e-5
    assert report.gain == pytest.approx(1, abs=1e-5)
    assert report.draws == 256


@torch.no_grad()
def test_a_task_module_with_reordered_inputs_is_reached() -> None:
    permutation = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(2))
    base = problem()
    other = TransplantProblem(base.teacher_task, shuffled(base.student_task, permutation), SHAPE)
    adapter, _ = closed_form(other, adapter_spec(), Draws(count=256), ridge=1e-12)
    x = features(4)
    assert relative(other.student_task(adapter(x)), other.teacher_task(x)) < 1e-5


@torch.no_grad()
def test_beta_gives_features_their_magnitude_and_weights_keep_it() -> None:
    adapter, report = closed_form(problem(beta=0.25), adapter_spec(), Draws(count=256), ridge=1e-12)
    assert float(adapter.beta) == 0.25
    assert relative(adapter(features(2)), 0.25 * features(2)) < 1e-5
    # The least-squares solution itself undoes β; the report says by how much it was scaled.
    assert report.gain == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_solution_is_the_least_squares_minimum(kernel: int) -> None:
    """The normal equations' residual and minimum are those of D'_S from the adapter's adjoint."""
    different = problem(teacher=1, student=2)
    spec = adapter_spec(1, kernel)
    adapter, report = closed_form(different, spec, Draws("exp2", 24), batch=24, ridge=0)
    signals = Signals.between(different, CHANNELS, policy="exp2", size=3)
    maps = PseudoGradients(different, CHANNELS, signals, draws=1)  # nothing kept: all the way
    V, D_T = maps(signals.draw(24, torch.Generator().manual_seed(0)))

    def residual(scale: float) -> float:
        with torch.no_grad():
            D_S = pseudo_gradient(adapter, V, input_shape_CHW=SHAPE) * scale
        return float((D_S - D_T).norm() / D_T.norm())

    at_solution = residual(1 / report.gain)
    assert at_solution == pytest.approx(report.residual, rel=1e-4)
    assert 0.05 < at_solution < 0.999
    weight = adapter.convolutions()[0].weight.data
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    for step in (1e-2, -1e-2):
        weight.add_(noise * step)
        assert residual(1 / report.gain) > at_solution
        weight.sub_(noise * step)


def test_the_same_seed_gives_the_same_bits_and_batches_do_not_matter() -> None:
    different = problem(teacher=1, student=2)

    def weight(seed: int = 0, batch: int = 32) -> torch.Tensor:
        drawn = Draws(count=64, seed=seed)
        adapter, _ = closed_form(different, adapter_spec(), drawn, batch=batch)
        return adapter.convolutions()[0].weight.detach()

    assert torch.equal(weight(seed=3), weight(seed=3))
    assert not torch.equal(weight(seed=3), weight(seed=4))
    assert relative(weight(batch=64), weight(batch=7)) < 1e-4


def test_sums_are_kept_in_double_precision() -> None:
    adapter = Adapter(adapter_spec())
    equations = normal_equations(problem(), adapter, Draws(count=4), 2)
    assert equations.A_UU.dtype == equations.B_UC.dtype == torch.float64
    assert equations.draws == 4


@torch.no_grad()
def test_other_numbers_of_channels_fit() -> None:
    base = problem()
    wide = nn.Sequential(nn.Conv2d(CHANNELS + 3, CHANNELS, 1), *base.student_task)
    spec = AdapterSpec(in_channels=CHANNELS, out_channels=CHANNELS + 3)
    joined = TransplantProblem(base.teacher_task, wide, SHAPE)
    with pytest.raises(TransplantError, match="share a mask at ReLU"):
        closed_form(joined, spec, Draws(count=8))
    named = nn.Sequential()
    named.add_module("mix", wide[0])
    for name, layer in base.student_task.named_children():
        named.add_module(name, layer)
    joined = TransplantProblem(base.teacher_task, named, SHAPE)
    adapter, report = closed_form(joined, spec, Draws(count=256), ridge=1e-9)
    assert adapter(features(1)).shape == (1, CHANNELS + 3, *SHAPE[1:])
    assert report.residual < 1e-3


def test_too_few_draws_are_named() -> None:
    with pytest.raises(TransplantError, match=r"from 1 draws.*more draws or a larger ridge"):
        closed_form(problem(), adapter_spec(kernel=3), Draws(count=1), ridge=0)


def test_a_dead_task_module_is_named() -> None:
    dead = problem()
    dead.student_task.get_parameter("fc7.weight").data.zero_()
    with pytest.raises(TransplantError, match="student's pseudo-gradients"):
        closed_form(dead, adapter_spec(), Draws(count=4))


@torch.no_grad()
def test_biases_bring_means_to_what_the_student_is_used_to() -> None:
    adapter, _ = closed_form(problem(teacher=1, student=2), adapter_spec(), Draws(count=64))
    adapter.beta.fill_(1.5)
    adapter.set_permutation(torch.arange(CHANNELS).flip(0))
    x = features(64)
    target = torch.linspace(0.1, 1, CHANNELS)
    assert bias_from_means(adapter, x.mean((0, 2, 3)), target) is adapter
    before_relu = adapter.convs[0](adapter.beta * x[:, adapter.permutation])
    torch.testing.assert_close(before_relu.mean((0, 2, 3)), target, rtol=1e-4, atol=1e-4)
    with pytest.raises(TransplantError, match="means of x"):
        bias_from_means(adapter, target[:-1], target)


def test_the_mean_after_a_relu_follows_from_mean_and_variance() -> None:
    means, variances = torch.tensor([-2.0, 0.0, 0.5, 3.0]), torch.tensor([1.0, 4.0, 0.25, 1.0])
    draws = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    sampled = (means + variances.sqrt() * draws).relu().mean(0)
    torch.testing.assert_close(rectified_mean(means, variances), sampled, rtol=0.02, atol=0.002)


def test_feature_means_come_from_the_last_convolution_or_not_at_all() -> None:
    category_module = build_category_module(SPEC)
    statistics = {
        f"{kind}/{layer}": torch.full((CHANNELS,), value)
        for layer, value in (("conv2_1", 9.0), ("conv2_2", 0.0))
        for kind in ("mean", "variance")
    }
    statistics["variance/conv2_2"] = torch.ones(CHANNELS)
    means = feature_means(category_module, statistics)
    assert means is not None
    torch.testing.assert_close(means, torch.full((CHANNELS,), 0.39894))
    del statistics["variance/conv2_2"]
    assert feature_means(category_module, statistics) is None


def test_feature_means_behind_a_block_are_not_guessed() -> None:
    """A residual net's stem is a convolution too, and its moments are not x's."""
    residual = build_category_module(
        ArchitectureSpec(name="small-resnet", split="block1_1", settings={"width": 4})
    )
    stem = {"mean/conv1": torch.ones(4), "variance/conv1": torch.ones(4)}
    assert feature_means(residual, stem) is None
    exact = feature_means(residual, {**stem, "mean/block1_1": torch.full((4,), 2.0)})
    assert exact is not None
    assert torch.equal(exact, torch.full((4,), 2.0))


@pytest.mark.parametrize("beta", [1e46, 1e-46, 0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_an_adapter_cannot_hold_is_refused(beta: float) -> None:
    """Norms of 1e-45 and 10 are both float32 and positive; their quotient is not float32."""
    with pytest.raises(TransplantError, match="β is"):
        problem(beta=beta)
