"""Whether seeds support what a mean says, and what a results page keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.harness import results
from tests.benchmarks.harness.goal import Goal, by_seeds, compared, markdown


def seeds(bar: str, *values: float) -> Goal:
    """Hold the mean of seeds' values against a bar, and ask whether they support it."""
    whole = compared("ours", "–", bar, sum(values) / len(values))
    (goal,) = by_seeds([whole], [[compared("ours", "–", bar, value)] for value in values])
    return goal


@pytest.mark.parametrize(
    ("bar", "values", "verdict"),
    [
        ("≤ 5 points", (2.0, 2.5, 1.5), "met"),
        ("≤ 5 points", (4.0, 6.5, 1.5), "open"),
        ("≤ 5 points", (6.0, 6.5, 6.1), "missed"),
        ("> 0", (0.4, 0.5, 0.6), "met"),
        ("> 0", (0.1, -0.2, 0.5), "open"),
        ("≥ −5 points", (-4.0, -4.5, -4.2), "met"),
        ("≥ 0", (0.0, 0.0, 0.0), "met"),
        ("> 0", (0.0, 0.0, 0.0), "missed"),
        ("> 0", (3.0,), "open"),
    ],
)
def test_met_is_what_the_seeds_support(bar: str, values: tuple[float, ...], verdict: str) -> None:
    assert seeds(bar, *values).verdict == verdict


def test_the_test_is_student_s() -> None:
    """Of three seeds 1 ± s, the t statistic is √3 / s, and 2.92 is its one-sided 95% quantile."""
    spread = 3**0.5 / 2.92
    assert seeds("> 0", 1 - spread * 1.01, 1, 1 + spread * 1.01).verdict == "open"
    assert seeds("> 0", 1 - spread * 0.99, 1, 1 + spread * 0.99).verdict == "met"


@pytest.mark.parametrize(("count", "verdict"), [(4, "open"), (5, "met")])
def test_an_order_has_to_hold_in_five_seeds(count: int, verdict: str) -> None:
    order = Goal("order", "–", "falls", "3, 2, 1", met=True)
    (goal,) = by_seeds([order], [[order]] * count)
    assert goal.verdict == verdict


def test_a_goal_that_a_seed_does_not_have_is_open() -> None:
    whole = compared("ours above b, the next", "–", "> 0", 1.0)
    (goal,) = by_seeds([whole], [[whole], [compared("ours above a, the next", "–", "> 0", 1.0)]])
    assert goal.verdict == "open"
    assert "not supported at 95%" in markdown([goal])


def test_a_section_keeps_its_rows_and_the_page_its_head(tmp_path: Path) -> None:
    page = tmp_path / results.PAGE
    page.write_text("# Results\n\nOf before.\n\n<!-- begin a -->\nold\n<!-- end a -->\n")
    results.write(tmp_path, results.Section("b", "B", "rootstock bench b", "new"))
    results.write(tmp_path, results.Section("a", "A", "rootstock bench a", "again"))
    results.write_rows(tmp_path, "a", [{"seed": 0, "error": 1 / 3, "who": "é"}])
    text = page.read_text()
    assert text.count("# Results\n") == 1
    assert "Of before" not in text
    assert "old" not in text
    assert text.index("again") < text.index("new")
    assert "commit " in text
    (line,) = (tmp_path / "rows" / "a.jsonl").read_text().splitlines()
    assert json.loads(line) == {"seed": 0, "error": 0.333333, "who": "é"}
