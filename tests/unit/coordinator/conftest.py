from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rootstock.common.nets.spec import TaskSpec
from rootstock.coordinator.context import CoordinatorContext
from tests.support.coordinator_context import open_context


@pytest.fixture
def tasks() -> tuple[TaskSpec, ...]:
    """Return the plan's tasks; a test may have others."""
    return (TaskSpec(name="classification"),)


@pytest.fixture
def context(tmp_path: Path, tasks: tuple[TaskSpec, ...]) -> Iterator[CoordinatorContext]:
    with open_context(tmp_path, tasks) as opened:
        yield opened
