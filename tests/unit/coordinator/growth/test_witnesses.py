"""What witnesses' answers amount to."""

from __future__ import annotations

import pytest

from rootstock.coordinator.config import WitnessesConfig
from rootstock.coordinator.growth.witnesses import YesShare, doubt, objection


@pytest.mark.parametrize(
    ("yes", "samples", "at_least"),
    [(100 * 11 / 53, 53, 13.1), (0.0, 20, 0.0), (100.0, 20, 88.1), (50.0, 1000, 47.4)],
)
def test_the_lower_bound_is_wilson_s(yes: float, samples: int, at_least: float) -> None:
    assert YesShare(yes, samples).at_least == pytest.approx(at_least, abs=0.1)


def test_only_what_is_above_the_rule_beyond_chance_objects() -> None:
    policy = WitnessesConfig()
    chance, certain, fine = YesShare(21.0, 100), YesShare(30.0, 100), YesShare(20.0, 10_000)
    assert objection(policy, [], 0.0) is None
    assert objection(policy, [chance, fine], 0.0) is None
    assert "30.0% of 100 images" in (objection(policy, [chance, certain], 0.0) or "")
    assert "21.0% of 100 images" in (doubt(policy, 2, [chance, fine], 0.0) or "")
    assert "may be chance" in (doubt(policy, 2, [chance, fine], 0.0) or "")
    assert doubt(policy, 1, [fine], 0.0) is None
    assert doubt(WitnessesConfig(unsure="rule"), 2, [chance], 0.0) is None


def test_what_a_lab_reports_itself_is_no_lie() -> None:
    """The join errs on 30% of its own images, so that it may take 60% of the others."""
    policy, many = WitnessesConfig(), YesShare(43.6, 200)
    assert objection(policy, [many], 30.0) is None
    assert "the error of 30.0% that its lab reports" in (doubt(policy, 1, [many], 30.0) or "")
    # The same share, and a lab that praises itself: of a share of 20% it has to be told apart.
    assert "reports an error of 5.0%" in (objection(policy, [many], 5.0) or "")
    assert objection(policy, [YesShare(90.0, 200)], 30.0) is not None
    assert objection(policy, [many], None) is not None
    # Nobody is asked, or a better join may be learned: the report explains nothing.
    assert objection(WitnessesConfig(unsure="rule"), [many], 30.0) is not None
    assert objection(policy, [many], 30.0, may_learn=True) is not None


def test_the_surest_share_is_what_the_operator_hears_of() -> None:
    few, many = YesShare(30.0, 20), YesShare(28.0, 400)
    told = doubt(WitnessesConfig(), 2, [few, many], 20.0) or ""
    assert "28.0% of 400 images" in told
    assert "the error of 20.0% that its lab reports" in told
