"""Run a federation of real processes on this machine until every lab's merge has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from rootstock.common.documents import Document
from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.coordinator.history.server import command, environment
from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.config import Federation
from rootstock.deploy.federation.processes import Processes
from rootstock.deploy.federation.progress import Display
from rootstock.deploy.federation.tables import category_rows
from rootstock.protos.rootstock.operator.v1 import operator_pb2

POLL_SECONDS = 0.5
ENDED = frozenset({"merged", "rejected", "failed", "rolled_back"})
COORDINATOR = "coordinator"
MLFLOW = "mlflow"


@dataclass(frozen=True)
class Outcome:
    """What a federation came to."""

    net_version: int
    seconds: float
    mlflow_uri: str
    categories: list[dict[str, Any]]


def run_federation(
    federation: Federation,
    state: Path,
    mlflow_port: int,
    display: Display,
    *,
    after: Callable[[Outcome, Processes], None],
) -> Outcome:
    """Start MLflow, the coordinator and the agents; follow them to the end; stop them.

    Parameters
    ----------
    federation
        Checked configurations, all on 127.0.0.1.
    state
        The federation's folder: `mlflow/`, `coordinator/`, `sites/`, `logs/`, `configuration/`.
    mlflow_port
        Where MLflow's server listens.
    display
        Shows how far every process is.
    after
        Called when all merges have ended while everything still runs (to print the table, or to
        keep the UI open).

    Raises
    ------
    ProcessEndedError
        If a process ends early; everything else is stopped first.
    """
    started = time.monotonic()
    with Processes(state / "logs") as processes:
        history = state / "mlflow"
        history.mkdir(parents=True, exist_ok=True)
        processes.start(MLFLOW, command(history, mlflow_port), environment())
        path = write_config(state, COORDINATOR, federation.coordinator)
        processes.start(COORDINATOR, [*_ROOTSTOCK, "coordinator", "run", "--config", str(path)])
        for site in federation.sites:
            path = write_config(state, site.site, site)
            processes.start(site.site, [*_ROOTSTOCK, "site", "run", "--config", str(path)])
        answer = _follow(federation, processes, display)
        outcome = Outcome(
            net_version=answer.net_version,
            seconds=round(time.monotonic() - started, 1),
            mlflow_uri=answer.mlflow_uri,
            categories=category_rows(answer),
        )
        display.close()
        after(outcome, processes)
    return outcome


_ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")


def write_config(state: Path, name: str, config: Document) -> Path:
    """Write a configuration as the TOML file that a process on a machine of its own would have."""
    path = state / "configuration" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), "utf-8")
    return path


def _follow(
    federation: Federation, processes: Processes, display: Display
) -> operator_pb2.GetStatusResponse:
    """Poll until each lab's submission is refused or has all its merges ended and logged."""
    answer: operator_pb2.GetStatusResponse | None = None
    while answer is None or not _ended(answer, federation):
        processes.check()
        try:
            with OperatorClient.of_state(federation.coordinator.state) as operator:
                while answer is None or not _ended(answer, federation):
                    processes.check()
                    answer = operator.status()
                    display.show(answer)
                    time.sleep(POLL_SECONDS)
        except (NotFoundError, UnreachableError):
            # Not up yet: torch and Ray take seconds to import. `check` tells if it has died.
            display.show(None)
            time.sleep(POLL_SECONDS)
    return answer


def _ended(answer: operator_pb2.GetStatusResponse, federation: Federation) -> bool:
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
