"""The environment of Rootstock's processes: without what was meant for other programs.

Libraries that Rootstock runs (MLflow, Ray, uvicorn, Python itself) take settings from variables
that a user has set for programs of their own: another MLflow server, another Ray cluster, a
company's proxy. `isolated` takes these out; `isolate` does so for this process and its children.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
"""What is never asked by way of a proxy; tools differ in whether they read networks."""

CREDENTIALS = frozenset(
    {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"}
    | {"MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH"}
    | {"MLFLOW_TRACKING_CLIENT_CERT_PATH"}
    | {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    | {"RAY_USE_TLS", "RAY_TLS_CA_CERT", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY"}
)
"""How a coordinator proves itself to an MLflow server or a Ray cluster that others run."""

_FOREIGN = (
    "MLFLOW_", "_MLFLOW_", "RAY_", "DATABRICKS_", "OTEL_",
    "UVICORN_", "GUNICORN_", "FLASK_", "WERKZEUG_", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS",
    "GRPC_", "MPLBACKEND", "MATPLOTLIBRC", "PYTHON",
)  # fmt: skip
"""Beginnings of variables that would rule the servers and clients that are started here."""

_PYTHONS_PLACE = frozenset(
    {"PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONNOUSERSITE"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
)
"""Where Python finds packages and keeps bytecode: the same for children as for this process."""

_PYTHON = {
    "PYTHONSAFEPATH": "1",  # a queue.py in the current folder is not the standard library's
    "PYTHONUNBUFFERED": "1",  # a log is complete when its process is killed
    "PYTHONUTF8": "1",
}


def isolated(environ: Mapping[str, str], *, credentials: bool) -> dict[str, str]:
    """Return an environment without the settings of other programs; loopback needs no proxy.

    `credentials` keeps those for servers that others run.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_FOREIGN)
        or name in _PYTHONS_PLACE
        or (credentials and name in CREDENTIALS)
    }
    if "PYTHONPATH" in kept:
        # Of a child that has another current folder.
        parts = (part for part in kept["PYTHONPATH"].split(os.pathsep) if part)
        kept["PYTHONPATH"] = os.pathsep.join(str(Path(part).absolute()) for part in parts)
    return kept | _PYTHON | direct(environ, LOOPBACK)


def isolate(environ: MutableMapping[str, str], *, credentials: bool = True) -> None:
    """Take the settings of other programs out of an environment, such as os.environ, in place."""
    wanted = isolated(environ, credentials=credentials)
    for name in environ.keys() - wanted.keys():
        del environ[name]
    environ.update(wanted)


def direct(environ: Mapping[str, str], hosts: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that except hosts from the proxies, beside those excepted already."""
    said = ",".join(environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    excepted = [host.strip() for host in said.split(",") if host.strip()]
    # Every host, which is so only when it stands alone.
    value = "*" if "*" in excepted else ",".join(dict.fromkeys([*excepted, *hosts]))
    return {"no_proxy": value, "NO_PROXY": value}


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its name or address; a name is not looked up."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold().rstrip(".") == "localhost" or host.casefold().endswith(".localhost")
