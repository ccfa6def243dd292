from __future__ import annotations

import pytest

from rootstock.common import times


def test_a_moment_of_ours_is_one() -> None:
    assert times.checked(moment := times.now()) == moment
    assert times.readable(times.checked(times.instant(1e9))) == "2001-09-09 01:46:40 UTC"


@pytest.mark.parametrize(
    "moment",
    [
        *("", "soon \x1b[2J", "2026-01-01", "2026-13-01T00:00:00.000+00:00"),
        *("2026-01-01T00:00:00.000+01:00", "2026-01-01T00:00:00+00:00"),
    ],
)
def test_what_a_peer_calls_one_is_none(moment: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        times.checked(moment)
