from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.nets.calibration import Calibration
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers

STORED: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "stored_before_kinds.json").read_text(encoding="utf-8")
)
"""What the version before this form wrote: `numbers` and `job_result` of a merge, its commit."""


@pytest.mark.parametrize("key", ["numbers", "report_numbers"])
def test_what_was_stored_is_read_and_written_the_same(key: str) -> None:
    assert MergeNumbers.from_flat(STORED[key]).flat() == STORED[key]


def test_a_commit_s_record_gives_its_numbers_and_not_its_words() -> None:
    numbers = MergeNumbers.from_flat(STORED["commit"]["merge"])
    assert numbers.teacher_error == 5.0
    assert numbers.seconds.keys() == {"closed-form", "zero-sample"}
    assert list(numbers.candidates) == [
        Candidate.NO_ADAPTER,
        Candidate.CLOSED_FORM,
        Candidate.ZERO_SAMPLE,
    ]
    assert set(numbers.other) == {"calibration_scale", "calibration_bias"}


def test_the_baseline_is_shown_without_a_calibration_and_judged_with_it() -> None:
    numbers = MergeNumbers.from_flat(STORED["report_numbers"])
    assert numbers.candidates[Candidate.NO_ADAPTER] == CandidateResult(
        25.0, 30.0, 12.5, Calibration(scale=2.0, bias=-1.0)
    )
    assert numbers.shown_errors == {
        Candidate.NO_ADAPTER: 30.0,
        Candidate.CLOSED_FORM: 20.0,
        Candidate.ZERO_SAMPLE: 5.0,
        Candidate.REFINED: 2.0,
    }
    assert numbers.error_of(Candidate.NO_ADAPTER) == 25.0
    assert numbers.error_of(Candidate.OWN_SAMPLES) is None


def test_a_second_answer_leaves_no_calibration_of_the_first() -> None:
    first = MergeNumbers.from_flat(
        {
            "teacher_error": 5.0,
            "no_adapter_error": 50.0,
            "no_adapter_calibrated_error": 8.0,
            "no_adapter_scale": 2.0,
            "no_adapter_bias": 0.0,
        }
    )
    second = MergeNumbers.from_flat({"no_adapter_error": 40.0, "new": 1.0})
    assert (first | second).flat() == {"teacher_error": 5.0, "no_adapter_error": 40.0, "new": 1.0}
