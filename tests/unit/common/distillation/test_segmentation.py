"""Transplanting onto a task module that labels every pixel (the paper's Experiment 3).

Shapes: N draws or samples, C channels, H/W height and width.
"""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rootstock.common.distillation.methods import method_named
from rootstock.common.distillation.problem import UNLABELLED, Samples, TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import output_shape, pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.maps import PseudoGradients
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.pseudo_gradients.signals import Signals
from rootstock.common.distillation.settings import BackDistillationSettings, Draws, MethodSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.distillation.transplant import Transplant, soft_labels
from rootstock.common.errors import TransplantError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import feature_shape
from tests.oracles.double_backward import slow_gradient
from tests.support import solver_nets
from tests.support.segmentation_nets import ADAPTER, SHAPE, features, spec, task_module

EXP3 = BackDistillationSettings(
    policy="exp3", distillation=1.0, steps=12, batch_size=4, draws=6, draws_per_step=3
)


SIZE = 32


def problem(teacher: int = 1, student: int = 1) -> TransplantProblem:
    return TransplantProblem(task_module(teacher), task_module(student), SHAPE)


def samples(count: int = 10) -> Samples:
    """What the teacher tells apart, with a border that nobody labelled."""
    x = features(count, seed=3)
    with torch.no_grad():
        y = task_module(1).eval()(x).squeeze(1)
    labels = (y > y.median()).float()
    labels[:, :3] = UNLABELLED
    return Samples(x, labels)


def adapter(seed: int = 0) -> Adapter:
    return Adapter(ADAPTER).random_start(torch.Generator().manual_seed(seed))


def run(given: Samples | None, settings: BackDistillationSettings = EXP3) -> BackDistillation:
    return BackDistillation(problem(1, 2), adapter(), given, settings)


@pytest.mark.parametrize(
    ("split", "blocks"), [(f"pool{s}", b) for b in (3, 4) for s in range(1, b + 1)]
)
def test_the_adjoint_of_small_fcns(split: str, blocks: int) -> None:
    """<J v, g> = <v, J^T g>, and D' is autograd's through a linearised copy."""
    architecture = spec(split, blocks)
    shape = feature_shape(architecture)
    module = task_module(3, architecture).double().eval()
    assert output_shape(module, shape) == (1, SIZE, SIZE)
    g = torch.randn(2, 1, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        back = pseudo_gradient(module, g, input_shape_CHW=shape)
    assert float(back.norm()) > 0
    torch.testing.assert_close(back, slow_gradient(module, g, shape[0], shape[1:]))


def test_exp3_draws_a_gradient_for_every_pixel_and_no_mask() -> None:
    def draw(seed: int = 0, size: int = 3) -> Any:
        signals = Signals.between(problem(1, 2), SHAPE[0], policy="exp3", size=size)
        return signals.draw(16, torch.Generator().manual_seed(seed))

    drawn = draw()
    assert drawn.G_NOSS.shape == (16, 1, SIZE, SIZE)
    assert -1 <= float(drawn.G_NOSS.min()) < -0.99
    assert 0.99 < float(drawn.G_NOSS.max()) <= 1
    assert drawn.masks == {}
    assert torch.equal(drawn.G_NOSS, draw(size=7).G_NOSS), "a map's G has the map's size"
    assert not torch.equal(drawn.G_NOSS, draw(seed=1).G_NOSS)


@pytest.mark.parametrize("policy", ["exp1", "exp2", "exp3"])
def test_every_policy_serves_a_map(policy: Any) -> None:
    same = problem()
    signals = Signals.between(same, SHAPE[0], policy=policy, size=2)
    maps = PseudoGradients(same, SHAPE[0], signals, draws=2)
    V, D_T = maps(signals.draw(2, torch.Generator().manual_seed(0)))
    assert torch.equal(V, D_T)
    assert float(V.abs().max()) > 0


def test_exp3_is_for_maps_of_one_size() -> None:
    with pytest.raises(TransplantError, match=r"'exp3' draws G for the pixels.*'exp1' or 'exp2'"):
        Signals.between(solver_nets.problem(), solver_nets.SHAPE[0], policy="exp3", size=1)
    smaller = nn.Sequential(*task_module(1), nn.MaxPool2d(2))
    mixed = TransplantProblem(task_module(1), smaller, SHAPE)
    with pytest.raises(TransplantError, match=r"\(1, 32, 32\) and \(1, 16, 16\)"):
        Signals.between(mixed, SHAPE[0], policy="exp3", size=1)


@pytest.mark.parametrize(("convs", "kernel"), [(1, 1), (3, 1), (1, 3)])
@torch.no_grad()
def test_shuffled_channels_are_undone_without_any_image(convs: int, kernel: Any) -> None:
    """Experiment 1's test, on a module that segments."""
    permutation = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1))
    same = problem()
    solved, report = closed_form(
        same,
        ADAPTER.model_copy(update={"convs": convs, "kernel": kernel}),
        Draws("exp3", 32),
        ridge=1e-12,
        permutation_C=permutation,
    )
    x = features(4)
    assert float((solved(x) - x).norm() / x.norm()) < 1e-5
    y = same.teacher_task(x)
    assert float((same.student_task(solved(x)) - y).norm() / y.norm()) < 1e-5
    assert report.residual < 1e-5
    assert report.gain == pytest.approx(1, abs=1e-5)


def test_the_loss_is_equation_3_over_the_labelled_pixels() -> None:
    given = samples()
    record = run(given, EXP3.model_copy(update={"batch_size": 10, "draws_per_step": 6})).step()
    pool = DrawPool.filled(problem(1, 2), adapter(), Draws("exp3", 6), 1 << 30)
    with torch.no_grad():
        y = problem(1, 2).student_task(adapter()(given.features_NCHW)).squeeze(1)
        seen = slice(3, None)  # the border's rows are not labelled
        task_loss = F.binary_cross_entropy_with_logits(y[:, seen], given.labels_N[:, seen])
        D_S = pseudo_gradient(adapter(), pool.V_NMHW, input_shape_CHW=SHAPE)
        square = (pool.alpha * D_S - pool.D_T_NCHW).square().sum((1, 2, 3)).mean()
    assert record.task_loss == pytest.approx(float(task_loss), rel=1e-4)
    assert record.distillation_loss == pytest.approx(float(square / pool.teacher_norm), rel=1e-4)


def test_a_pixel_without_a_label_says_nothing() -> None:
    """What stands under the border changes no weight; what stands elsewhere does."""

    def learned(labels: Tensor) -> Tensor:
        learning = run(Samples(samples().features_NCHW, labels))
        for _ in range(3):  # Adam's first step knows signs only
            learning.step()
        return learning.adapter.convolutions()[0].weight.detach().clone()

    labels = samples().labels_N
    more = labels.clone()
    more[:, :3] = 1.0
    assert torch.equal(learned(labels), learned(labels))
    assert not torch.equal(learned(labels), learned(more))
    hidden = torch.full_like(labels, UNLABELLED)
    hidden[0] = labels[0]  # most batches of 4 hold no labelled pixel
    learning = run(Samples(samples().features_NCHW, hidden))
    records = [learning.step() for _ in range(12)]
    assert 0.0 in {record.task_loss for record in records}
    assert any(record.task_loss > 0 for record in records)
    with pytest.raises(TransplantError, match="none of the 10 samples has a labelled pixel"):
        Samples(samples().features_NCHW, torch.full_like(labels, UNLABELLED))


def test_a_run_cut_anywhere_goes_on_bit_for_bit() -> None:
    whole, first = run(samples()), run(samples())
    records = [whole.step() for _ in range(12)]
    for _ in range(5):
        first.step()
    second = run(samples()).restore(load(save(first.state())))
    assert records[5:] == [second.step() for _ in range(7)]
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    assert not torch.equal(
        adapter().convolutions()[0].weight, whole.adapter.convolutions()[0].weight
    )


def test_without_samples_it_approaches_the_closed_form() -> None:
    _, report = closed_form(problem(1, 2), ADAPTER, Draws("exp3", 8), ridge=0)
    settings = EXP3.model_copy(
        update={"steps": 300, "learning_rate": 0.03, "draws": 8, "draws_per_step": 8}
    )
    learning = run(None, settings)
    records = [learning.step() for _ in range(300)]
    pool = DrawPool.filled(problem(1, 2), adapter(), Draws("exp3", 8), 1 << 30)
    energy = float(pool.D_T_NCHW.square().sum((1, 2, 3)).mean()) / pool.teacher_norm
    minimum = energy * report.residual**2
    assert records[0].loss > 1.2 * minimum
    assert 0.999 * minimum < records[-1].loss < 1.02 * minimum


def test_the_teacher_labels_every_pixel() -> None:
    given = problem(1, 2)
    given.teacher_task.double()  # rounding depends on the batch, and its scores are large
    x = features(3).double()
    soft = soft_labels(given, x)
    assert soft.shape == (3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(soft, given.teacher_task(x)[:, 0].sigmoid())


@pytest.mark.parametrize("name", ["back-distill", "direct-learn", "distill"])
def test_the_papers_methods_learn_a_segmentation(name: str) -> None:
    """Each comes nearer to what it learns from; all are methods by name."""
    given = samples(12)
    settings = MethodSettings(
        learning=EXP3.model_copy(update={"steps": 80, "learning_rate": 0.02, "batch_size": 12})
    )
    learning = method_named(name).begin(Transplant(problem(1, 2), ADAPTER, given), settings)
    records = []
    while not learning.done:
        records.append(learning.step())
    assert records[-1].task_loss < 0.9 * records[0].task_loss


def test_what_a_map_cannot_be_asked_is_refused() -> None:
    given = Transplant(problem(1, 2), ADAPTER, samples())
    with pytest.raises(TransplantError, match=r"one for each pixel; use back-distill"):
        method_named("jacobian").begin(given, MethodSettings(learning=EXP3))
    per_image = Samples(features(4), torch.ones(4))
    with pytest.raises(TransplantError, match=r"\(4, 32, 32\).*\(4,\).*every pixel"):
        run(per_image).step()
    coarse = Samples(features(4), torch.ones(4, 16, 16))
    with pytest.raises(TransplantError, match=r"\(4, 32, 32\).*\(4, 16, 16\)"):
        run(coarse).step()
    for labels in (torch.ones(4, 32), torch.ones(3, SIZE, SIZE)):
        with pytest.raises(TransplantError, match=r"labels \(N\), or \(N, H, W\)"):
            Samples(features(4), labels)
