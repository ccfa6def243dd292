from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.common.environment import CREDENTIALS, is_loopback, isolate, isolated


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_REGISTRY_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_SERVER_ALLOWED_HOSTS",
        "MLFLOW_STATIC_PREFIX", "MLFLOW_TRACKING_URI", "MLFLOW_UVICORN_OPTS", "_MLFLOW_SERVER_X",
        "RAY_ADDRESS", "RAY_NAMESPACE", "RAY_TMPDIR", "RAY_RUNTIME_ENV_HOOK",
        "UVICORN_PORT", "UVICORN_SSL_KEYFILE", "GUNICORN_CMD_ARGS", "FLASK_APP", "WEB_CONCURRENCY",
        "DATABRICKS_HOST", "OTEL_EXPORTER_OTLP_ENDPOINT",
        "GRPC_POLL_STRATEGY", "GRPC_VERBOSITY", "MPLBACKEND", "MATPLOTLIBRC",
        "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONIOENCODING",
    ],
)  # fmt: skip
def test_what_was_meant_for_other_programs_is_taken_out(name: str) -> None:
    assert name not in isolated({name: "x"}, credentials=True)


@pytest.mark.parametrize(
    "name",
    ["HOME", "PATH", "TMPDIR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "AWS_PROFILE",
     "HTTPS_PROXY", "SSL_CERT_FILE", "PYTHONHOME", "LANG", "TZ"],
)  # fmt: skip
def test_what_is_meant_for_this_machine_stays(name: str) -> None:
    assert isolated({name: "x"}, credentials=False)[name] == "x"


def test_credentials_are_kept_where_others_run_the_server() -> None:
    given = dict.fromkeys(CREDENTIALS, "x")
    assert given.items() <= isolated(given, credentials=True).items()
    assert isolated(given, credentials=False).keys().isdisjoint(CREDENTIALS)


@pytest.mark.parametrize(
    ("environ", "excepted"),
    [
        ({}, "localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"NO_PROXY": "a, b"}, "a,b,localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,b,localhost,127.0.0.1,127.0.0.0/8,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_excepted_from_proxies(environ: dict[str, str], excepted: str) -> None:
    made = isolated(environ, credentials=False)
    assert (made["no_proxy"], made["NO_PROXY"]) == (excepted, excepted)


def test_it_may_be_done_again() -> None:
    environ = {"PATH": "/bin", "PYTHONPATH": "src:", "MLFLOW_X": "1", "NO_PROXY": "a"}
    isolate(environ)
    once = dict(environ)
    isolate(environ)
    assert environ == once
    assert environ["PYTHONPATH"] == str(Path.cwd() / "src")


def test_a_module_of_the_current_folder_is_not_the_standard_librarys(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong one')")
    run = [sys.executable, "-m", "rootstock.deploy.cli.main", "--version"]
    environment = isolated(os.environ | {"PYTHONPATH": _path()}, credentials=False)
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def _path() -> str:
    return os.pathsep.join(each for each in sys.path if each)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("LocalHost.", True),
     ("a.localhost", True), ("10.0.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
