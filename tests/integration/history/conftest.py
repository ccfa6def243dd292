from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rootstock.coordinator.context import CoordinatorContext
from tests.support.coordinator_context import open_context
from tests.support.mlflow_server import mlflow_server


@pytest.fixture
def context(tmp_path: Path) -> Iterator[CoordinatorContext]:
    with open_context(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
