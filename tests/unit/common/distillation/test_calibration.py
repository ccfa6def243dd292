import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rootstock.common.distillation.calibration import calibrate_by_labels
from rootstock.common.errors import TransplantError
from rootstock.common.nets.calibration import Calibration


def outputs(count: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and labels drawn from their own probabilities: calibrated by construction."""
    generator = torch.Generator().manual_seed(seed)
    y_N = 2 * torch.randn(count, generator=generator)
    return y_N, (torch.rand(count, generator=generator) < torch.sigmoid(y_N)).float()


def test_the_default_leaves_outputs_bit_for_bit() -> None:
    y_N, _ = outputs()
    assert Calibration().apply(y_N) is y_N
    torch.testing.assert_close(Calibration(scale=2, bias=-1).apply(y_N), 2 * y_N - 1)


@pytest.mark.parametrize("numbers", [{"scale": 0.0}, {"scale": 1e9}, {"bias": math.inf}])
def test_what_a_lab_sends_back_is_capped(numbers: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Calibration(**numbers)


def test_a_shift_and_a_scale_are_undone() -> None:
    y_N, labels_N = outputs(4000)
    found = calibrate_by_labels(0.2 * y_N + 5, labels_N, balanced=False, prior=1e-9)
    torch.testing.assert_close(found.apply(0.2 * y_N + 5), y_N, rtol=0.1, atol=0.15)


@torch.no_grad()
def test_the_teachers_outputs_are_met_exactly_where_they_can_be() -> None:
    y_N, _ = outputs()
    found = calibrate_by_labels(
        -3 + 0.5 * y_N, torch.sigmoid(y_N.double()), balanced=False, prior=1e-12
    )
    assert found.scale == pytest.approx(2, rel=1e-4)
    assert found.bias == pytest.approx(6, rel=1e-4)


@pytest.mark.parametrize("balanced", [True, False])
def test_the_fit_is_where_the_gradient_vanishes(balanced: bool) -> None:
    y_N, labels_N = outputs(50)
    labels_N[:10] = 1
    found = calibrate_by_labels(y_N, labels_N, balanced=balanced, prior=1e-12)
    point = torch.tensor([found.scale, found.bias], dtype=torch.float64, requires_grad=True)
    share = float(labels_N.mean())
    weight_N = torch.where(labels_N > 0, 0.5 / share, 0.5 / (1 - share)) if balanced else None
    loss = F.binary_cross_entropy_with_logits(
        point[0] * y_N.double() + point[1],
        labels_N.double(),
        None if weight_N is None else weight_N.double(),
    )
    (slope,) = torch.autograd.grad(loss, point)
    assert float(slope.abs().max()) < 1e-5


def test_few_samples_told_apart_without_error_keep_the_fit_finite() -> None:
    y_N = torch.tensor([6.0, 7.0, 8.0, 9.0])
    found = calibrate_by_labels(y_N, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert 0 < found.scale < 100
    assert -found.bias / found.scale == pytest.approx(7.5, abs=0.1)


def test_an_answer_is_never_turned_round() -> None:
    y_N, labels_N = outputs()
    found = calibrate_by_labels(y_N + 1, 1 - labels_N)
    assert found.scale == pytest.approx(1)
    assert abs(found.bias) > 0.1


def test_balance_moves_the_threshold_of_a_rare_category() -> None:
    y_N, labels_N = outputs(2000)
    rare = (labels_N == 0) | (torch.arange(2000) % 10 == 0)
    y_N, labels_N = y_N[rare], labels_N[rare]
    fair, plain = (calibrate_by_labels(y_N, labels_N, balanced=b) for b in (True, False))
    assert abs(fair.bias) < 0.5
    assert plain.bias < -1.5


@pytest.mark.parametrize("equal", [torch.full((6,), 3.0), torch.zeros(6)])
def test_an_output_that_never_changes_gets_a_threshold_alone(equal: Tensor) -> None:
    assert calibrate_by_labels(equal, torch.tensor([0.0, 1, 0, 1, 0, 1])).scale > 0


@pytest.mark.parametrize(
    ("y_N", "labels_N"),
    [
        (torch.zeros(0), torch.zeros(0)),
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(3), torch.tensor([0.0, 1.0])),
        (torch.tensor([math.nan, 1.0]), torch.tensor([0.0, 1.0])),
    ],
)
def test_what_cannot_be_fitted_is_refused(y_N: Tensor, labels_N: Tensor) -> None:
    with pytest.raises(TransplantError, match="both sides"):
        calibrate_by_labels(y_N, labels_N)
