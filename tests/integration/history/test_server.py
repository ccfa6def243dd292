"""The server of one's own: stopped while it starts, behind a proxy, among others' settings."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rootstock.common.errors import UnreachableError
from rootstock.coordinator.history.server import health, prepare
from rootstock.deploy.federation.processes import Processes, free_ports
from tests.support.histories import history_at
from tests.support.mlflow_server import MlflowServer, mlflow_server

pytestmark = [pytest.mark.slow]


def tables(database: Path) -> set[str]:
    if not database.exists():
        return set()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        try:
            return {name for (name,) in opened.execute("SELECT name FROM sqlite_master")}
        except sqlite3.OperationalError:  # it is being written
            return set()


def stop_in_the_midst(folder: Path) -> None:
    """Kill a server once it has begun with its tables."""
    with Processes(folder / "logs") as processes:
        MlflowServer(processes, folder, *free_ports(1))
        while "experiments" not in tables(folder / "mlflow.db"):
            processes.check()
            time.sleep(0.005)
        killed = processes.take("mlflow")
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()


def test_a_server_that_was_killed_while_it_made_its_tables_starts_again(tmp_path: Path) -> None:
    stop_in_the_midst(tmp_path)
    with mlflow_server(tmp_path) as uri:
        assert health(uri, 5) == 200


def test_a_database_with_runs_stays(tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as uri:
        run = MlflowClient(uri, uri).create_run("0").info.run_id
    prepare(tmp_path)
    with mlflow_server(tmp_path) as uri:
        assert MlflowClient(uri, uri).get_run(run).info.run_id == run


def test_what_is_no_database_stays(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("a thesis, of more than a hundred letters" * 9)
    prepare(tmp_path)
    assert (tmp_path / "mlflow.db").exists()


FOREIGN = {
    "MLFLOW_REGISTRY_STORE_URI": "sqlite:////proc/nowhere/registry.db",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "/proc/nowhere",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.org",
    "MLFLOW_STATIC_PREFIX": "/mlflow",
    "MLFLOW_BACKEND_STORE_URI": "sqlite:////proc/nowhere/mlflow.db",
    "MLFLOW_ARTIFACTS_ONLY": "true",
    "MLFLOW_UVICORN_OPTS": "--root-path /elsewhere --ssl-keyfile nowhere",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
    "MLFLOW_WORKSPACE": "theirs",
    "UVICORN_UDS": "/proc/nowhere/socket",
    "UVICORN_SSL_KEYFILE": "nowhere",
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:80",
    "WEB_CONCURRENCY": "no number",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "http_proxy": "http://127.0.0.1:9",
}


def test_other_programs_settings_do_not_rule_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    with mlflow_server(tmp_path) as uri:
        for name in FOREIGN:
            monkeypatch.delenv(name)
        client = MlflowClient(uri, uri)
        client.create_registered_model("ours")
        run = client.create_run("0")
        client.log_text(run.info.run_id, "text", "file.txt")
    assert "registered_models" in tables(tmp_path / "mlflow.db")
    assert [each.name for each in (tmp_path / "artifacts").rglob("file.txt")] == ["file.txt"]


class Proxy(BaseHTTPRequestHandler):
    """Answers everything with 502, and notes what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(502)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Noting", (Proxy,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://user:s3cret@127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Set a proxy, as a company does; yield what it is asked for."""
    with proxy() as (address, asked):
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield asked


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_this_machine_is_not_asked_by_a_proxy(through: list[str], host: str) -> None:
    history = history_at(f"http://{host}:{free_ports(1)[0]}", "digits")
    with pytest.raises(UnreachableError) as caught:
        history.check()
    assert "proxy" not in str(caught.value)
    assert through == []


def test_a_proxy_that_does_not_reach_the_server_is_named_without_its_password(
    through: list[str],
) -> None:
    history = history_at("http://mlflow.example.org:5000", "digits")
    with pytest.raises(UnreachableError, match=r"the proxy 127\.0\.0\.1:\d+, .* 502") as caught:
        history.check()
    assert "NO_PROXY=mlflow.example.org" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert through == ["http://mlflow.example.org:5000/health"]


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"the proxy 127\.0\.0\.1:9, .* answers nothing"):
        history_at("http://mlflow.example.org:5000", "digits").check()
