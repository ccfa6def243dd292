from __future__ import annotations

import math

import pytest

from rootstock.common.errors import LimitError, SchemaError
from rootstock.coordinator.config import AcceptanceConfig
from rootstock.coordinator.growth.acceptance import acceptance, doubts
from rootstock.coordinator.growth.numbers import MergeNumbers

POLICY = AcceptanceConfig(max_error=40.0, max_above_teacher=10.0)


@pytest.mark.parametrize(
    ("numbers", "accepted", "candidate"),
    [
        ({"teacher_error": 5, "refined_error": 7}, True, "refined"),
        # The best of all is taken.
        (
            {
                "teacher_error": 5,
                "no_adapter_error": 50,
                "zero_sample_error": 30,
                "few_sample_error": 9,
                "refined_error": 12,
            },
            True,
            "few_sample",
        ),
        # What the edge would have counts: with no adapter, too, the calibration goes along.
        (
            {
                "teacher_error": 5,
                "no_adapter_error": 50,
                "no_adapter_calibrated_error": 8,
                "zero_sample_error": 9,
                "zero_sample_uncalibrated_error": 1,
            },
            True,
            "no_adapter",
        ),
        # Of equals the simpler one.
        ({"teacher_error": 5, "refined_error": 6, "no_adapter_error": 6}, True, "no_adapter"),
        # Both bounds are inclusive.
        ({"teacher_error": 30, "zero_sample_error": 40}, True, "zero_sample"),
        ({"teacher_error": 35, "zero_sample_error": 40.1}, False, "zero_sample"),
        ({"teacher_error": 5, "zero_sample_error": 15}, True, "zero_sample"),
        ({"teacher_error": 5, "zero_sample_error": 15.1}, False, "zero_sample"),
        # Better than the teacher is fine.
        ({"teacher_error": 20, "refined_error": 0}, True, "refined"),
        ({"teacher_error": 5}, False, None),
        ({"teacher_error": 5, "seconds": 3.0}, False, None),
    ],
)
def test_policy(numbers: dict[str, float], accepted: bool, candidate: str | None) -> None:
    verdict = acceptance(POLICY, MergeNumbers.from_flat(numbers))
    assert (accepted, candidate) == (verdict.accepted, verdict.candidate)
    assert verdict.reason


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"teacher_error": 5, "refined_error": 41}, "acceptance.max_error"),
        ({"teacher_error": 5, "refined_error": 16}, "acceptance.max_above_teacher"),
    ],
)
def test_a_rejection_names_value_rule_and_setting(numbers: dict[str, float], named: str) -> None:
    reason = acceptance(POLICY, MergeNumbers.from_flat(numbers)).reason
    assert f"{numbers['refined_error']:.1f}%" in reason
    assert named in reason


@pytest.mark.parametrize("value", [-0.1, 100.1, math.nan, math.inf])
@pytest.mark.parametrize("key", ["teacher_error", "refined_error"])
def test_an_error_is_a_percentage(key: str, value: float) -> None:
    numbers = {"teacher_error": 5.0, "refined_error": 6.0, key: value}
    with pytest.raises(LimitError, match=key):
        acceptance(POLICY, MergeNumbers.from_flat(numbers))


def test_needs_the_teachers_error() -> None:
    with pytest.raises(SchemaError, match="teacher_error"):
        acceptance(POLICY, MergeNumbers.from_flat({"refined_error": 6.0}))


FIRST = POLICY.model_copy(update={"take": "first"})


@pytest.mark.parametrize(
    ("numbers", "accepted", "candidate", "reason"),
    [
        # The first that keeps to both bounds, simplest first, not the best.
        (
            {
                "teacher_error": 5,
                "no_adapter_error": 30,
                "closed_form_error": 14,
                "zero_sample_error": 6,
                "refined_error": 5,
            },
            True,
            "closed_form",
            "the teacher 5.0%, no_adapter 30.0%: the first that will do",
        ),
        (
            {"teacher_error": 5, "no_adapter_error": 15, "closed_form_error": 5},
            True,
            "no_adapter",
            "the first that will do",
        ),
        # Where none does, the best is named, as ever.
        (
            {"teacher_error": 5, "no_adapter_error": 30, "closed_form_error": 20},
            False,
            "closed_form",
            "above the teacher's 5.0% may be merged",
        ),
    ],
)
def test_the_first_that_will_do(
    numbers: dict[str, float], accepted: bool, candidate: str | None, reason: str
) -> None:
    verdict = acceptance(FIRST, MergeNumbers.from_flat(numbers))
    assert (accepted, candidate) == (verdict.accepted, verdict.candidate)
    assert reason in verdict.reason


def test_images_that_changed_since_the_manifest_are_no_doubt_where_none_is_wanted() -> None:
    """Nobody would be there to decide in a federation that follows the rule alone."""
    by_rule = AcceptanceConfig(first="rule", min_samples=0)
    assert doubts(by_rule, first=None, stated=40.0, reported=39.0) == []
    few = doubts(AcceptanceConfig(first="rule"), first=None, stated=40.0, reported=19.0)
    assert ["19 validation images" in reason for reason in few] == [True]
