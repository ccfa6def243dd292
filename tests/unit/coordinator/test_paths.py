"""Where a coordinator keeps things, whatever its folder is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from rootstock.coordinator.config import StateConfig
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import Registry
from tests.support.mlflow_server import mlflow_server

NAMES = ("what?", "100%25", "a#b", "Kühe #1?", "a b", "x?mode=memory")


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_lies_in_its_folder(tmp_path: Path, name: str) -> None:
    state = tmp_path / name
    state.mkdir(mode=0o700)
    paths = StatePaths(StateConfig(net="animals", state=state))
    Registry(paths.database).close()
    assert paths.database_file.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_mlflow_keeps_all_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100%25"
    folder.mkdir(mode=0o700)
    with mlflow_server(folder) as uri:
        client = MlflowClient(uri, uri)
        client.log_text(client.create_run("0").info.run_id, "x", "a.txt")
    assert (folder / "mlflow.db").exists()
    assert len(list((folder / "artifacts").rglob("a.txt"))) == 1
    assert list(tmp_path.iterdir()) == [folder]
