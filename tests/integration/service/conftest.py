from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from tests.support.coordinator_server import Lab, LabMaker, Running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def coordinator(state: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A running server; parametrize indirectly with a dict of server settings."""
    running = Running(state, **getattr(request, "param", {}))
    yield running
    running.stop()


@pytest.fixture
def lab(coordinator: Running, tmp_path: Path) -> Iterator[LabMaker]:
    """Return how to make labs; they are closed in the end."""
    made: list[Lab] = []

    def make(name: str, *, address: str | None = None) -> Lab:
        new = Lab(name, address or coordinator.address, tmp_path / "labs")
        made.append(new)
        return new

    yield make
    for each in made:
        each.close()


@pytest.fixture
def config(coordinator: Running, tmp_path: Path) -> Path:
    """The running coordinator's configuration as its operator has it, for commands."""
    path = tmp_path / "coordinator.toml"
    path.write_text(tomli_w.dumps(coordinator.config.model_dump(mode="json", exclude_none=True)))
    return path
