from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rootstock.coordinator.context import CoordinatorContext
from tests.support.coordinator_context import open_context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[CoordinatorContext]:
    with open_context(tmp_path) as opened:
        yield opened
