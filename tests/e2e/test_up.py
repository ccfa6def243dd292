"""`rootstock up` among other programs' settings, and with a process that ends before its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from tests.support.checkout import CHECKOUT
from tests.support.federation_processes import digits_federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

PROGRAM = "import sys; from rootstock.deploy.cli.main import main; sys.exit(main())"
"""As the console script runs it: the current folder is not on the path."""

FOREIGN = {
    "MLFLOW_REGISTRY_STORE_URI": "sqlite:////proc/nowhere/registry.db",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "/proc/nowhere",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example.org",
    "MLFLOW_TRACKING_URI": "http://mlflow.example.org",
    "MLFLOW_EXPERIMENT_ID": "77",
    "RAY_ADDRESS": "mlflow.example.org:6379",
    "RAY_TMPDIR": "/proc",
    "RAY_USE_TLS": "1",
    "PYTHONSTARTUP": "queue.py",
    "GRPC_POLL_STRATEGY": "bad",
    "UVICORN_UDS": "/proc/nowhere/socket",
    "WEB_CONCURRENCY": "x",
    "MPLBACKEND": "nothing",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "REQUESTS_CA_BUNDLE": "/proc/nowhere",
    "SSL_CERT_FILE": "/proc/nowhere",
    "LC_ALL": "POSIX",
    "TERM": "dumb",
    "COLUMNS": "20",
}


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write(folder: Path, **changes: Any) -> Path:
    config = digits_federation(evaluation={"refine": False}).model_dump(exclude_none=True)
    path = folder / "federation.toml"
    path.write_text(tomli_w.dumps(config | changes), "utf-8")
    return path


def test_neither_others_settings_nor_a_folder_of_modules_rule_it(tmp_path: Path) -> None:
    for name in ("queue", "typing", "json", "common", "ray"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "matplotlibrc").write_text("text.usetex : True\n")
    file = write(tmp_path)
    with start(tmp_path, "up", str(file), "--state", "net", "--json", **FOREIGN) as up:
        out, errors = up.communicate(timeout=300)
    assert up.returncode == 0, errors[-2000:]
    assert {row["status"] for row in json.loads(out)["categories"]} == {"merged"}


def test_a_coordinator_that_is_killed_is_started_again(tmp_path: Path) -> None:
    file = write(tmp_path)
    with start(tmp_path, "up", str(file), "--state", "net", "--json") as up:
        address = tmp_path / "net" / "coordinator" / "address"
        deadline = time.monotonic() + 120
        while not address.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for child in psutil.Process(up.pid).children():
            if "coordinator" in child.cmdline():
                child.send_signal(signal.SIGKILL)
        out, errors = up.communicate(timeout=300)
    assert up.returncode == 0, errors[-2000:]
    assert "coordinator was killed by SIGKILL" in errors
    assert {row["status"] for row in json.loads(out)["categories"]} == {"merged"}


def test_the_exit_code_is_that_of_the_process_that_ended(tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    data = {"kind": "image-folder", "path": str(tmp_path / "images")}
    file = write(tmp_path, sites=[{"site": "lab", "category": "cat"}], site={"data": data})
    with start(tmp_path, "up", str(file), "--state", "net") as up:
        _, errors = up.communicate(timeout=300)
    assert up.returncode == 4, errors[-2000:]
    assert "ended with exit code 4; its log is" in errors
    assert errors.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("state", ["/proc/nowhere", "file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_made_is_a_matter_of_storage(tmp_path: Path, state: str) -> None:
    (tmp_path / "file").touch()
    file = write(tmp_path)
    for command in (["up", str(file)], ["demo"]):
        with start(tmp_path, *command, "--state", state) as up:
            _, errors = up.communicate(timeout=60)
        assert up.returncode == 5, errors
        assert errors.startswith("error: ")
        assert len(errors.splitlines()) == 1
