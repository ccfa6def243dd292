"""The unit tests mirror the packages: whoever looks for a room's tests finds them by its name."""

from __future__ import annotations

import pytest

from tests.support.checkout import CHECKOUT

UNIT = CHECKOUT / "tests" / "unit"


@pytest.mark.parametrize("package", ["common", "coordinator", "deploy", "site_agent"])
def test_every_folder_of_unit_tests_is_a_room_of_the_product(package: str) -> None:
    folders = {path.parent.relative_to(UNIT) for path in (UNIT / package).rglob("test_*.py")}
    assert folders
    assert [str(folder) for folder in folders if not (CHECKOUT / folder).is_dir()] == []
