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
    assert objection(policy, []) is None
    assert objection(policy, [chance, fine]) is None
    assert "30.0% of 100 images" in (objection(policy, [chance, certain]) or "")
    assert "21.0% of 100 images" in (doubt(policy, 2, [chance, fine]) or "")
    assert doubt(policy, 1, [fine]) is None
    assert doubt(WitnessesConfig(unsure="rule"), 2, [chance]) is None
