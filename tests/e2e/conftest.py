from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootstock.deploy.federation.config import FederationConfig
from rootstock.deploy.federation.processes import Processes
from tests.support.federation_processes import Running
from tests.support.mlflow_server import mlflow_server


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One MLflow server for all tests: it takes longer to start than the tests to run."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture
def federation(tmp_path: Path, mlflow_uri: str) -> Iterator[Callable[[FederationConfig], Running]]:
    with Processes(tmp_path / "logs") as processes:
        yield lambda config: Running(config, tmp_path, mlflow_uri, processes)
