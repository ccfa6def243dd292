"""An MLflow server of one's own: SQLite, a local folder, one worker, this machine only."""

from __future__ import annotations

import secrets
import sqlite3
import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, build_opener, getproxies, proxy_bypass

from rootstock.common.environment import is_loopback
from rootstock.common.files import make_private
from rootstock.common.identity.keys import create_private, read_private
from rootstock.coordinator.history.gate import PASSWORD, USER

HOST = "127.0.0.1"

_DATABASE = "mlflow.db"
_PASSWORD = "password"  # noqa: S105  (a file's name)


_USED = "SELECT 1 FROM runs UNION SELECT 1 FROM experiments WHERE experiment_id != 0 LIMIT 1"


def prepare(folder: Path) -> None:
    """Make a server's folder; delete a database in it that nobody has used.

    MLflow makes its tables in steps that it cannot repeat: a server that was stopped in the midst
    of them would never start again.
    """
    make_private(folder, own=(_DATABASE, _PASSWORD))
    database = folder / _DATABASE
    if database.exists() and not _is_used(database):
        for path in (database, *folder.glob(f"{_DATABASE}-*")):  # its journals
            path.unlink(missing_ok=True)


def _is_used(database: Path) -> bool:
    """Say whether there is a run, or an experiment beside the one that MLflow itself makes."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as opened:
            return opened.execute(_USED).fetchone() is not None
    except sqlite3.DatabaseError as error:
        # Any other error may pass, and says nothing of what the database holds.
        return "no such table" not in str(error)


def command(port: int) -> list[str]:
    """Return the command line of a server that keeps everything in the folder where it is run.

    A path in an address would be read by rules of addresses, which a folder's name may break.
    """
    return [
        *(sys.executable, "-m", "rootstock.coordinator.history.gated_server"),
        *("--backend-store-uri", f"sqlite:///{_DATABASE}"),
        *("--artifacts-destination", "./artifacts"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def password_of(folder: Path) -> str:
    """Return a server's password, made at its first start; only this user can read it."""
    path = folder / _PASSWORD
    create_private(path, secrets.token_urlsafe(24).encode())
    return read_private(path).decode()


def signed_in(port: int, folder: Path) -> str:
    """Return the address of the server of `folder` with name and password, which say who asks."""
    return f"http://{USER}:{password_of(folder)}@{HOST}:{port}"


def environment(folder: Path) -> dict[str, str]:
    """Return what the environment of the server of `folder` adds to ours.

    MLflow 3 would start seven more processes for jobs on traces, which nothing here has: measured
    on two idle cores, 2.4 GB and both cores busy against 0.5 GB and 0.3% of one.
    """
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        PASSWORD: password_of(folder),
    }


def is_healthy(port: int) -> bool:
    """Say whether a server on this machine answers."""
    try:
        return health(f"http://{HOST}:{port}", 1) == HTTPStatus.OK
    except (OSError, HTTPException):
        return False


def health(uri: str, seconds: float) -> int:
    """Return the status code of a server's /health; OSError or HTTPException if it is silent.

    It is asked as MLflow's client asks: by the environment's proxy, unless it is on this machine.
    """
    parts = urlsplit(uri)
    host = parts.hostname or ""
    proxy = None if is_loopback(host) or proxy_bypass(host) else getproxies().get(parts.scheme)
    opener = build_opener(ProxyHandler({parts.scheme: proxy} if proxy else {}))
    # Without a name and a password, which urllib would take for a part of the host.
    address = parts._replace(
        netloc=parts.netloc.rpartition("@")[2], path=parts.path + "/health", query="", fragment=""
    )
    try:
        with closing(opener.open(address.geturl(), timeout=seconds)) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        if proxy is None or error.code not in _PROXYS_OWN:
            return error.code
        raise OSError(_through(proxy, host, f"answers {error.code}")) from error
    except URLError as error:
        if proxy is None:
            raise OSError(str(error.reason)) from error
        raise OSError(_through(proxy, host, f"answers nothing ({error.reason})")) from error


_PROXYS_OWN = frozenset(
    {HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
    | {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
"""Status codes that may be the proxy's, not the server's."""


def _through(proxy: str, host: str, what: str) -> str:
    shown = urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return (
        f"the proxy {shown}, which the environment names, {what}; if {host} is reached without it, "
        f"set NO_PROXY={host}"
    )
