"""An MLflow server of one's own: SQLite, a local folder, one worker, this machine only."""

from __future__ import annotations

import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

HOST = "127.0.0.1"


def command(folder: Path, port: int) -> list[str]:
    """Return the command line of a server that keeps everything in `folder`."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{(folder / 'mlflow.db').resolve()}"),
        *("--artifacts-destination", str((folder / "artifacts").resolve())),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def environment() -> dict[str, str]:
    """Return what the server's environment adds to ours.

    MLflow 3 would start seven more processes for jobs on traces, which nothing here has: measured
    on two idle cores, 2.4 GB and both cores busy against 0.5 GB and 0.3% of one.
    """
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def is_healthy(port: int) -> bool:
    """Say whether a server on this machine answers."""
    try:
        return health(f"http://{HOST}:{port}", 1) == HTTPStatus.OK
    except (OSError, HTTPException):
        return False


def health(uri: str, seconds: float) -> int:
    """Return the status code of a server's /health; OSError or HTTPException if it is silent."""
    parts = urlsplit(uri)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(kind(parts.hostname or "", parts.port, timeout=seconds)) as connection:
        connection.request("GET", parts.path + "/health")
        return connection.getresponse().status
