"""A coordinator, MLflow and agents as processes, for tests that kill and restart them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.common.nets.graph import NetTree
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.net.reader import NetReader
from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.config import FederationConfig, read, resolve
from rootstock.deploy.federation.enrol import enrol
from rootstock.deploy.federation.processes import Processes, free_ports
from rootstock.deploy.federation.run import write_config
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusResponse, MergeStatus
from rootstock.site_agent.config import SiteConfig

ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")
PATIENCE_SECONDS = 150.0


def digits_federation(**coordinator: Any) -> FederationConfig:
    """Two labs of the demo's data and a net that trains in seconds."""
    return FederationConfig.model_validate(
        {
            "net": "digits",
            "coordinator": {
                "plan": {
                    "architecture": {
                        "name": "small-vgg",
                        "split": "pool1",
                        "settings": {"input_size": 32, "width": 8},
                    }
                },
                # What is tested here is the way of the merge, not how good the nets are.
                "acceptance": {"max_error": 100.0, "max_above_teacher": 100.0},
                "witnesses": {"max_yes": 100.0},
                "distillation": QUICK,
                **coordinator,
            },
            "site": {
                "share_samples": 10,
                "threads": 1,
                "data": {"kind": "digits", "rest": ["5", "6", "7", "8", "9"], "parts": 5},
                "training": {"epochs": 2},
                "refinement": {"steps": 20},
            },
            "sites": [
                {"site": "lab-zero", "category": "zero", "data": {"class_name": "0", "part": 1}},
                {"site": "lab-one", "category": "one", "data": {"class_name": "1", "part": 2}},
            ],
        }
    )


def compatible_example(path: Path) -> FederationConfig:
    """Return an example, with fewer epochs and a bound that tells the recipes apart.

    Labs that are not compatible have errors of 40% and more with no adapter.
    """
    config = read(path)
    site = {**config.site, "training": {**config.site["training"], "epochs": 12}}
    coordinator = {**config.coordinator}
    coordinator["acceptance"] = {**coordinator["acceptance"], "max_above_teacher": 15.0}
    return config.model_copy(update={"site": site, "coordinator": coordinator})


QUICK = {"zero_sample_method": "closed-form", "few_sample_method": "back-distill"}


class Running:
    """Processes of one federation, each of which can be killed and started again."""

    def __init__(
        self, config: FederationConfig, state: Path, mlflow_uri: str, processes: Processes
    ) -> None:
        (self.port,) = free_ports(1)
        self.federation = resolve(
            config,
            source="test",
            state=state,
            coordinator_port=self.port,
            mlflow_uri=mlflow_uri,
        )
        self.state = state
        self.processes = processes
        enrol(self.federation)

    @property
    def coordinator(self) -> CoordinatorConfig:
        return self.federation.coordinator

    def site(self, name: str) -> SiteConfig:
        return next(site for site in self.federation.sites if site.site == name)

    def start_coordinator(self, env: dict[str, str] | None = None) -> None:
        path = write_config(self.state, "coordinator", self.coordinator)
        command = [*ROOTSTOCK, "coordinator", "run", "--config", str(path)]
        self.processes.start("coordinator", command, env)

    def start_site(
        self, name: str, *, address: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        site = self.site(name)
        if address is not None:
            site = site.model_copy(update={"coordinator": address})
        path = write_config(self.state, name, site)
        self.processes.start(name, [*ROOTSTOCK, "site", "run", "--config", str(path)], env)

    def run(self, *words: str, code: int = 0) -> str:
        """Return what an operator's command says: its output, or the error that it ends with."""
        config = self.state / "configuration" / "coordinator.toml"
        command = [*ROOTSTOCK, *words, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def tree(self) -> NetTree:
        with NetReader.open(self.coordinator) as view:
            assert view.head is not None
            return view.tree(view.head)

    def kill(self, name: str) -> None:
        """kill -9 of one process; what it started is left to notice."""
        process = self.processes.take(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def status(self) -> GetStatusResponse | None:
        try:
            with OperatorClient(self.coordinator.state) as operator:
                return operator.status()
        except (NotFoundError, UnreachableError):
            return None

    def until(
        self, what: str, done: Callable[[GetStatusResponse], bool], pause: float = 0.1
    ) -> GetStatusResponse:
        deadline = time.monotonic() + PATIENCE_SECONDS
        answer = None
        while time.monotonic() < deadline:
            self.processes.check()
            answer = self.status()
            if answer is not None and done(answer):
                return answer
            time.sleep(pause)
        raise AssertionError(f"waited {PATIENCE_SECONDS:g} s for {what}; the last status: {answer}")


def merge_of(answer: GetStatusResponse, category: str) -> MergeStatus | None:
    return next((merge for merge in answer.merges if merge.category == category), None)


def merged(category: str) -> Callable[[GetStatusResponse], bool]:
    def done(answer: GetStatusResponse) -> bool:
        merge = merge_of(answer, category)
        assert merge is None or merge.state not in ("rejected", "failed"), merge
        return merge is not None and merge.state == "merged" and merge.logged

    return done
