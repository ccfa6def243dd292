"""The parts of ``bench solver`` at tiny sizes; the actors' part has a test among the jobs'."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rootstock.common.errors import TransplantError
from tests.benchmarks.system import solver_closed_form, solver_speed
from tests.benchmarks.system.solver import cpu_disagreement, table
from tests.benchmarks.system.solver_cases import CASES, Step, disagreement

pytestmark = pytest.mark.slow

KEYS = {
    *("net", "device", "adjoint_speedup", "adjoint_memory_ratio"),
    *("closed_form_speedup", "draws_per_second", "bound_draws_per_second"),
}


@pytest.mark.parametrize("name", ["tiny", "tiny-exp2"])
def test_three_ways_of_a_step_give_one_gradient(name: str) -> None:
    step = Step(CASES[name])
    slow = step.double_backward()
    assert float(slow[0].norm()) > 0
    assert disagreement(step.fresh(), slow) < 1e-5
    assert disagreement(step.pooled(), slow) < 1e-5


def test_a_row_and_its_bound() -> None:
    row = solver_speed.measure("tiny", CASES["tiny"], rounds=3)
    assert row.keys() >= KEYS
    # Per draw, forward and backward through both nets and once more through the student's:
    # 5 passes against 2, and the adapter's own, which weigh little even here.
    assert 2 < row["flops_ratio"] < 4
    assert row["double_backward_peak_bytes"] > 0
    assert 0 < row["draws_per_second"] < row["bound_draws_per_second"]
    lines: list[str] = []
    table([row], lines.append)
    assert any(line.startswith("small-vgg") for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_wrong_rule_is_found() -> None:
    step = Step(CASES["tiny"])
    other = Step(CASES["tiny"])
    first = other.problem.student_task.get_submodule("conv2_2")
    assert isinstance(first, nn.Conv2d)
    first.weight.data *= 1.01
    assert disagreement(step.fresh(), other.double_backward()) > 1e-4


@pytest.mark.parametrize("reordered", [True, False])
def test_the_closed_form_against_optimisation(reordered: bool) -> None:
    case = replace(CASES["tiny"], kernel=1, reordered=reordered)
    row = solver_closed_form.measure(case, draws=32, lengths=(60,), rounds=1)
    assert row.keys() >= KEYS
    assert row["closed_form_is_lower_bound"] == (
        row["optimised_residual"] > 1.01 * row["closed_form_residual"]
    )
    assert row["closed_form_is_lower_bound"] == reordered
    if reordered:
        # 60 steps from a random start do not undo the reordering, which the closed form does.
        assert row["closed_form_residual"] < 1e-3 < row["optimised_residual"]
    lines: list[str] = []
    table([row], lines.append)
    assert any((" >" in line) == reordered for line in lines if line.startswith("small-vgg"))
    assert max(map(len, lines)) <= 80


def test_another_device_is_checked_against_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(CASES["tiny"], dtype=torch.bfloat16)
    assert 1e-4 < cpu_disagreement("tiny", case, tolerance=0.1) < 0.1
    with pytest.raises(TransplantError, match=r"tiny: D'_T on cpu in torch\.bfloat16 differs"):
        cpu_disagreement("tiny", case, tolerance=1e-4)
    step = Step(case)
    # On CPUs with AMX, oneDNN's bfloat16 gives a second derivative 23 times too small (torch
    # 2.14.1; without oneDNN, and in float32, the two agree).
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert disagreement(step.fresh(), step.double_backward()) < 0.1
