"""Run a federation of real processes on this machine, and show what one has left."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from rootstock.common.config import load
from rootstock.common.documents import Document
from rootstock.common.errors import AddressInUseError, NotFoundError, UnreachableError
from rootstock.common.files import write_bytes
from rootstock.coordinator.config import CoordinatorConfig, HistoryConfig
from rootstock.coordinator.history.gate import USER
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.server import (
    HOST,
    command,
    environment,
    is_healthy,
    password_of,
    prepare,
    signed_in,
)
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.pictures.net import draw_net
from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.config import Federation
from rootstock.deploy.federation.enrol import enrol
from rootstock.deploy.federation.folder import locked, state_folder
from rootstock.deploy.federation.processes import (
    ProcessEndedError,
    Processes,
    free_ports,
    interrupt_on_signals,
    is_taken,
)
from rootstock.deploy.federation.progress import ENDED, Display
from rootstock.deploy.federation.tables import category_rows
from rootstock.deploy.output import PEOPLE, note
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb

POLL_SECONDS = 0.5
RESTARTS = 3
"""How often one process is started again before its federation is given up."""

RESTART_SECONDS = 5.0
"""Pause before that: what killed it may still be short of memory."""

COORDINATOR = "coordinator"
MLFLOW = "mlflow"
PICTURE = "net.png"

_ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")


@dataclass(frozen=True)
class Outcome:
    """The result of a federation whose merges have ended."""

    net_version: int
    seconds: float
    mlflow_uri: str
    categories: list[dict[str, Any]]

    def as_json(self, folder: Path) -> dict[str, Any]:
        """Return the JSON of `demo` and `up`; paths are relative to the current folder if below."""
        if folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        return {
            "net_version": self.net_version,
            "seconds": self.seconds,
            "mlflow_uri": self.mlflow_uri,
            "categories": self.categories,
            "places": {
                "MLflow UI": f"rootstock coordinator ui {folder}",
                "net": str(folder / PICTURE) if self.net_version else "none was founded",
                "logs": str(folder / "logs"),
                "state": str(folder),
            },
        }


def run_federation(
    federation: Federation,
    state: Path,
    mlflow_port: int,
    display: Display,
    *,
    after: Callable[[Outcome, Processes], None],
) -> None:
    """Start MLflow, the coordinator and the agents; follow them to the end; stop them.

    The folder `state` gets `mlflow/`, `coordinator/`, `sites/`, `logs/` and `configuration/`.
    `after` is called when all merges have ended while everything still runs (to print the table,
    or to keep the UI open). A process that is killed, or cannot reach another, is started again.
    ProcessEndedError if one ends otherwise, and AddressInUseError if one finds its port taken; the
    others are stopped.
    """
    started = time.monotonic()
    with Processes(state / "logs", state) as processes:
        history = state / "mlflow"
        prepare(history)
        processes.start(MLFLOW, command(mlflow_port), environment(history), history)
        enrol(federation)
        path = write_config(state, COORDINATOR, federation.coordinator)
        processes.start(COORDINATOR, [*_ROOTSTOCK, "coordinator", "run", "--config", str(path)])
        for site in federation.sites:
            path = write_config(state, site.site, site)
            processes.start(site.site, [*_ROOTSTOCK, "site", "run", "--config", str(path)])
        supervisor = _Supervisor(processes, history, mlflow_port)
        answer = _follow(federation, supervisor, display)
        outcome = Outcome(
            net_version=answer.net_version,
            seconds=round(time.monotonic() - started, 1),
            mlflow_uri=f"http://{HOST}:{mlflow_port}",
            categories=category_rows(answer),
        )
        display.close()
        with NetReader.open(federation.coordinator) as net:
            if net.head is not None:
                draw_net(net.tree(net.head), state / PICTURE)
        after(outcome, processes)


def serve_history(state: Path, port: int) -> None:
    """Serve the history that a federation has left, in MLflow's UI on 127.0.0.1, until Ctrl-C."""
    state = state_folder(state)
    history = state / "mlflow"
    if not history.is_dir():
        raise NotFoundError(
            f"{history}: no history here; give the folder that `demo` or `up` named"
        )
    interrupt_on_signals()
    config = load(state / "configuration" / f"{COORDINATOR}.toml", CoordinatorConfig)
    chosen = port or free_ports(1)[0]
    with locked(state), Processes(state / "logs", state) as processes:
        prepare(history)
        processes.start("mlflow-ui", command(chosen), environment(history), history)
        while not is_healthy(chosen):
            processes.check()
            time.sleep(0.2)
        here = HistoryConfig(mlflow_uri=signed_in(chosen, history))
        shown = History.of(config.model_copy(update={"history": here}))
        page = shown.page(shown.namespace())
        PEOPLE.print(
            f"The merges are at {page}\n{sign_in(history)}\nCtrl-C stops it.", soft_wrap=True
        )
        processes.wait()


def sign_in(history: Path) -> str:
    """Say for people how to sign in to the MLflow server of a folder."""
    return f"Sign in as {USER} with password {password_of(history)}"


def write_config(state: Path, name: str, config: Document) -> Path:
    """Write a configuration as the TOML file that a process on a machine of its own would have."""
    path = state / "configuration" / f"{name}.toml"
    write_bytes(path, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)).encode())
    return path


class _Supervisor:
    """Starts processes again whose end nobody is to blame for; each a few times."""

    def __init__(self, processes: Processes, history: Path, mlflow_port: int) -> None:
        self._processes = processes
        self._history = history
        self._mlflow_port = mlflow_port
        self._restarts: Counter[str] = Counter()

    def check(self) -> None:
        """Look after the processes; see `run_federation` for what is raised."""
        try:
            self._processes.check()
        except ProcessEndedError as ended:
            if self._lost_its_port(ended):
                raise AddressInUseError(str(ended)) from ended
            if self._restarts[ended.name] == RESTARTS or not _is_passing(ended):
                raise
            self._restarts[ended.name] += 1
            note(
                f"{ended.reason}; it is started again "
                f"({self._restarts[ended.name]} of {RESTARTS} times)"
            )
            time.sleep(RESTART_SECONDS)
            if ended.name == MLFLOW:
                prepare(self._history)
            self._processes.restart(ended.name)

    def _lost_its_port(self, ended: ProcessEndedError) -> bool:
        """Say whether another process took the port between its choice and its use."""
        return ended.code == AddressInUseError.exit_code or (
            # MLflow ends with 1, whatever the reason.
            ended.name == MLFLOW and ended.code > 0 and is_taken(self._mlflow_port)
        )


def _is_passing(ended: ProcessEndedError) -> bool:
    """Say whether a process may do better next time: it was killed, or missed another one.

    Errors of ours have codes of their own; Ray's library ends its process with 1 where it lost its
    node in its first second.
    """
    return ended.code in (1, UnreachableError.exit_code) or ended.code < 0 or ended.name == MLFLOW


def _follow(
    federation: Federation, processes: _Supervisor, display: Display
) -> pb.GetStatusResponse:
    """Poll until each lab's submission is refused or has all its merges ended and logged."""
    while True:
        processes.check()
        try:
            with OperatorClient(federation.coordinator.state) as operator:
                while True:
                    processes.check()
                    answer = operator.status()
                    display.show(answer)
                    time.sleep(POLL_SECONDS)
                    if _ended(answer, federation):
                        return answer
        except (NotFoundError, UnreachableError):
            # Not up yet: torch and Ray take seconds to import. `check` raises if it has died.
            display.show(None)
            time.sleep(POLL_SECONDS)


def _ended(answer: pb.GetStatusResponse, federation: Federation) -> bool:
    submissions = {submission.site: submission for submission in answer.submissions}
    for site in federation.sites:
        submission = submissions.get(site.site)
        if submission is None:
            return False
        if submission.state == "refused":
            continue
        merges = [m for m in answer.merges if m.submission_id == submission.submission_id]
        if not merges or any(m.state not in ENDED or not m.logged for m in merges):
            return False
    return True
