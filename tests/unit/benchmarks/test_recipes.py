"""`bench recipes`: both recipes on real digits, all else equal; and what the page says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rootstock.common.errors import SchemaError
from rootstock.site_agent.config import TrainingConfig
from tests.benchmarks.cli import app
from tests.benchmarks.harness.experiment import Outcome
from tests.benchmarks.harness.request import Folders, requested
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.transplant import recipes, teachers
from tests.benchmarks.papers.transplant.cells import Cell, Setup
from tests.benchmarks.papers.transplant.experiment import BUDGETS
from tests.benchmarks.papers.transplant.recipes import BOTH_HEADS, SUPERVISED, TASK_HEAD, RecipeRow

pytestmark = pytest.mark.slow

ROW = RecipeRow("digits", "one", SUPERVISED, "identity", 0, 50.0, 30.0, 1.0)


def rows() -> list[RecipeRow]:
    found = []
    for seed in (0, 1, 2):
        for recipe, error in ((SUPERVISED, 50.0), (TASK_HEAD, 4.0)):
            for join, less in (("identity", 0.0), ("closed-form", 1.0), ("auto", 2.0)):
                told = error - less + seed
                found.append(
                    replace(
                        ROW,
                        recipe=recipe,
                        join=join,
                        seed=seed,
                        error=told,
                        calibrated_error=told / 2,
                    )
                )
    return found


def test_the_page_says_what_is_saved() -> None:
    asked = recipes.requested(requested(BUDGETS, Folders(Path(), Path())), "digits", [])
    text = Outcome(asked, rows(), 12.3).text()
    assert "| supervised | 1.0 ±0.0 | 51.0 ±2.5→25.5 ±1.2 |" in text
    saved = "Points of error that `compatible` saves: identity +46.0, closed-form +46.0, auto +46.0"
    assert saved in text
    # A join that has no answer anywhere is no number, and no saving.
    gone = [replace(row, error=None) if row.join == "auto" else row for row in rows()]
    text = Outcome(asked, gone, 12.3).text()
    assert "closed-form +46.0." in text
    assert "auto +" not in text


def test_only_data_with_public_images_has_a_rotation_head() -> None:
    assert recipes.recipes("digits") == (SUPERVISED, TASK_HEAD)
    assert recipes.recipes("cifar10") == (SUPERVISED, TASK_HEAD, BOTH_HEADS)


def test_compatible_digits_need_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(teachers.SETTINGS, "digits", (0, TrainingConfig(epochs=6)))
    monkeypatch.setattr(recipes, "JOINS", ("identity",))
    errors = {}
    for recipe in (SUPERVISED, TASK_HEAD):
        setup = Setup(Folders(tmp_path, tmp_path), 2, "digits", (0,), ("identity",))
        (row,) = recipes.joined((Cell(setup, "one", 0), recipe))
        assert row.error is not None
        assert row.teacher_error < 8
        errors[recipe] = row.error
    assert errors[TASK_HEAD] < errors[SUPERVISED] - 20
    # Nets of two recipes are two files; the founder's is one for both. So are their statistics.
    measured = list(tmp_path.glob("*-statistics.safetensors"))
    assert len(measured) == 3
    others = set(tmp_path.glob("*.safetensors")) - set(measured)
    assert len(others) == 3 + 1  # and the decoded images


def test_what_is_not_known_is_refused() -> None:
    request = requested(BUDGETS, Folders(Path(), Path()))
    with pytest.raises(SchemaError, match="'zero' is none of the categories that join zero's net"):
        recipes.requested(request, "digits", ["zero"])
    with pytest.raises(SchemaError, match="unknown data 'birds'"):
        recipes.requested(request, "birds", [])
    assert datasets.SIMILAR["digits"][0] == "zero"
    outcome = CliRunner().invoke(app, ["recipes", "--data", "birds", "--seeds", "1"])
    assert isinstance(outcome.exception, SchemaError)
