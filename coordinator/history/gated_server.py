"""``python -m``: `mlflow server` with the same arguments, its application behind `history.gate`."""

from __future__ import annotations

import sys
from typing import Any

import mlflow.server
from mlflow.cli import cli

from rootstock.common.errors import ConfigurationError

APPLICATION = "rootstock.coordinator.history.gate:app"


def _gate_the_application() -> None:
    """Let MLflow start uvicorn with ours, or nothing: a plugin that is installed is its own way."""
    server: Any = mlflow.server
    build, start = server._build_uvicorn_command, server._exec_cmd

    def gated(
        options: Any, host: Any, port: Any, workers: Any, _: str, *more: Any, **named: Any
    ) -> Any:
        return build(options, host, port, workers, APPLICATION, *more, **named)

    def gated_only(arguments: Any, **named: Any) -> Any:
        if APPLICATION not in arguments:
            raise ConfigurationError(
                f"MLflow {mlflow.__version__} starts its server by another way than the one that "
                f"asks for a password ({APPLICATION}); install the version that constraints.txt has"
            )
        return start(arguments, **named)

    server._build_uvicorn_command, server._exec_cmd = gated, gated_only


if __name__ == "__main__":
    _gate_the_application()
    cli(["server", *sys.argv[1:]])
