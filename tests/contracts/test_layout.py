"""The layout is what ARCHITECTURE.md says, and the unit tests mirror the packages."""

from __future__ import annotations

import re

import pytest

from tests.support.checkout import CHECKOUT

ROOMS = ("common", "coordinator", "deploy", "protos", "site_agent", "tests")
UNIT = CHECKOUT / "tests" / "unit"


@pytest.mark.parametrize("package", ["common", "coordinator", "deploy", "site_agent"])
def test_every_folder_of_unit_tests_is_a_room_of_the_product(package: str) -> None:
    folders = {path.parent.relative_to(UNIT) for path in (UNIT / package).rglob("test_*.py")}
    assert folders
    assert [str(folder) for folder in folders if not (CHECKOUT / folder).is_dir()] == []


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_is_there(document: str) -> None:
    files = {path for room in ROOMS for path in (CHECKOUT / room).rglob("*.*")}
    ends = {path.relative_to(CHECKOUT).as_posix() for path in files | set(CHECKOUT.glob("*.*"))}
    text = (CHECKOUT / document).read_text("utf-8")
    names = re.findall(r"`([\w./]+\.(?:py|html|md|txt|toml))`", text)
    assert names
    missing = [name for name in names if not any(f"/{end}".endswith(f"/{name}") for end in ends)]
    assert missing == []
