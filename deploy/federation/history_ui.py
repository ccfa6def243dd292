"""MLflow's UI over the history that a federation has left."""

from __future__ import annotations

import time
from pathlib import Path

from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.server import command, environment, is_healthy
from rootstock.deploy.federation.processes import Processes, free_ports, sigterm_is_an_interrupt
from rootstock.deploy.output import PEOPLE


def serve_history(state: Path, port: int) -> None:
    """Serve `<state>/mlflow` on 127.0.0.1 until Ctrl-C.

    Raises
    ------
    NotFoundError
        If no federation has left a history there.
    """
    history = state / "mlflow"
    if not history.is_dir():
        raise NotFoundError(
            f"{history}: no history here; give the folder that `demo` or `up` named"
        )
    sigterm_is_an_interrupt()
    net = load(state / "configuration" / "coordinator.toml", CoordinatorConfig).net
    chosen = port or free_ports(1)[0]
    with Processes(state / "logs") as processes:
        processes.start("mlflow-ui", command(history, chosen), environment())
        while not is_healthy(chosen):
            processes.check()
            time.sleep(0.2)
        page = History(f"http://127.0.0.1:{chosen}", net).page()
        PEOPLE.print(f"The merges are at {page}\nCtrl-C stops it.", soft_wrap=True)
        while True:
            processes.check()
            time.sleep(0.5)
