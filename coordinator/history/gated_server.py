"""``python -m``: `mlflow server` with the same arguments, its application behind `history.gate`."""

from __future__ import annotations

import sys
from typing import Any

import mlflow.server
from mlflow.cli import cli

APPLICATION = "rootstock.coordinator.history.gate:app"


def _gate_the_application() -> None:
    """Let MLflow start uvicorn with ours: it takes another only from an installed plugin."""
    server: Any = mlflow.server
    build = server._build_uvicorn_command

    def gated(
        options: Any, host: Any, port: Any, workers: Any, _: str, *more: Any, **named: Any
    ) -> Any:
        return build(options, host, port, workers, APPLICATION, *more, **named)

    server._build_uvicorn_command = gated


if __name__ == "__main__":
    _gate_the_application()
    cli(["server", *sys.argv[1:]])
