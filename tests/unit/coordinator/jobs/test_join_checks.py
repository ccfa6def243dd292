"""A join's answers before its commit: finite, and not overruled by their calibration."""

from __future__ import annotations

import pytest
import torch

from rootstock.common.errors import LimitError, SchemaError
from rootstock.common.nets.calibration import Calibration
from rootstock.coordinator.jobs.join_checks import REACH, check_join, error_percent

Y_N = torch.linspace(-3, 5, 40)
MEAN, DEVIATION = float(Y_N.mean()), float(Y_N.std(correction=0))


def test_answers_are_finite() -> None:
    check_join(Y_N, Calibration())
    with pytest.raises(SchemaError, match=r"^overflow: the join answers NaN or Inf"):
        check_join(torch.cat([Y_N, torch.tensor([torch.inf])]), Calibration())


@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("deviations", [-0.9 * REACH, 0.0, 2.0, 0.9 * REACH])
def test_what_labs_fit_is_let_in(scale: float, deviations: float) -> None:
    border = MEAN + deviations * DEVIATION
    check_join(Y_N, Calibration(scale=scale, bias=-scale * border))


@pytest.mark.parametrize(
    ("scale", "bias"),
    [
        (1e-6, 1e6),  # every picture is the category
        (1e-6, -1e6),  # none is
        (1.0, 2 * REACH * DEVIATION),
        (1e-6, 0.0),  # nothing is certain
        (1e6, 0.0),  # everything is
    ],
)
def test_a_calibration_that_overrules_the_net_is_named(scale: float, bias: float) -> None:
    with pytest.raises(LimitError, match=r"^calibration: y ↦ "):
        check_join(Y_N, Calibration(scale=scale, bias=bias))


def test_answers_that_are_all_alike_have_no_calibration() -> None:
    same = torch.full((40,), 2.0)
    check_join(same, Calibration())
    with pytest.raises(LimitError, match=r"^calibration: "):
        check_join(same, Calibration(scale=2.0, bias=0.0))


def test_errors_are_counted_on_either_side_of_zero() -> None:
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert error_percent(torch.tensor([3.0, -1.0, -2.0, 0.0]), labels) == 25.0


def test_the_operator_s_samples_need_not_be_balanced() -> None:
    """Of 10 images of the category among 100, a join that says no to all has 90 right."""
    labels = torch.cat([torch.ones(10), torch.zeros(90)])
    assert error_percent(torch.full((100,), -1.0), labels) == 50.0
    assert error_percent(torch.full((100,), 1.0), labels) == 50.0
    half_missed = torch.where(torch.arange(100) < 5, 1.0, -1.0)
    assert error_percent(half_missed, labels) == 25.0
