from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.grown_net import Command, GrownNet, animals


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def grown(tmp_path: Path) -> GrownNet:
    return animals(tmp_path)
