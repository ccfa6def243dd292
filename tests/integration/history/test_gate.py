"""The MLflow server of `up`: who has no password, as other users of this machine, reads nothing."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest
from mlflow import MlflowClient

from rootstock.coordinator.history.server import (
    HOST,
    command,
    environment,
    is_healthy,
    password_of,
    prepare,
    signed_in,
)
from rootstock.deploy.federation.processes import Processes, free_ports


def status(uri: str, authorization: str = "") -> int:
    request = urllib.request.Request(uri)
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_only_who_has_the_password_reads_and_writes(tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    (port,) = free_ports(1)
    prepare(folder)
    with Processes(tmp_path / "logs") as processes:
        processes.start("mlflow", command(port), environment(folder), folder)
        while not is_healthy(port):
            processes.check()
            time.sleep(0.1)
        password = password_of(folder)
        uri = f"http://{HOST}:{port}"
        pages = ("/", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/metrics", "/health/..")
        for page in pages:
            for wrong in ("", basic("rootstock", "guess"), basic("root", password), password):
                assert status(uri + page, wrong) == 401, (page, wrong)
        for page in pages[:2]:
            assert status(uri + page, basic("rootstock", password)) == 200, page
        assert status(uri + "/health") == 200

        client = MlflowClient(signed_in(port, folder), signed_in(port, folder))
        run = client.create_run("0").info.run_id
        client.log_text(run, "text", "file.txt")
        assert [each.path for each in client.list_artifacts(run)] == ["file.txt"]
        with pytest.raises(Exception, match="401"):
            MlflowClient(uri, uri).get_run(run)

        server = psutil.Process(processes.pid("mlflow"))
        for process in (server, *server.children(recursive=True)):
            assert not any(password in argument for argument in process.cmdline())
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == HOST
    assert (folder / "password").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert password_of(folder) == password  # a page that was opened stays so over a restart


UNGATED = """
import mlflow.server
from rootstock.common.errors import ConfigurationError
from rootstock.coordinator.history import gated_server

mlflow.server._build_uvicorn_command = lambda *arguments: list(arguments)
mlflow.server._exec_cmd = lambda arguments, **_: print("started", arguments[-1])
gated_server._gate_the_application()
application = "mlflow.server.fastapi_app:app"
try:
    mlflow.server._exec_cmd(["uvicorn", application], extra_env={})
except ConfigurationError as error:
    print(error)
command = mlflow.server._build_uvicorn_command(None, "127.0.0.1", 1, 1, application)
mlflow.server._exec_cmd(command, extra_env={})
"""


def test_an_mlflow_that_would_start_without_the_gate_starts_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNGATED], capture_output=True, text=True, check=True
    )
    refused, started = done.stdout.splitlines()
    assert "another way than the one that asks for a password" in refused
    assert started == "started rootstock.coordinator.history.gate:app"
