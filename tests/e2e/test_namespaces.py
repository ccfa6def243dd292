"""Two labs on networks of their own, which reach the coordinator at addresses of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import tomli_w

from rootstock.coordinator.registry import Access
from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.processes import Processes
from tests.support.checkout import CHECKOUT
from tests.support.coordinator_server import Running
from tests.support.federation_processes import ROOTSTOCK
from tests.support.namespaces import Namespace, namespaces, reason_against

ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT)}
PATIENCE_SECONDS = 120.0


def joined(state: Path, network: Namespace, name: str, folder: Path) -> dict[str, str]:
    """Join from within a lab's network."""
    with OperatorClient(state) as operator:
        offer = operator.invite(name, Access.SITE, 60.0)
    port = offer.address.rpartition(":")[2]
    words = ("site", "join", f"{network.here}:{port}", "--token", offer.token, "--ca")
    folder.mkdir()
    done = subprocess.run(
        network.command(*ROOTSTOCK, *words, offer.authority, "--json"),
        env={**os.environ, **ENVIRONMENT},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def test_labs_join_and_ship_from_networks_of_their_own(tmp_path: Path) -> None:
    if reason := reason_against():
        pytest.skip(f"no network namespaces here: {reason}")
    state = tmp_path / "state"
    running = Running(state, listen="0.0.0.0:0", join_listen="0.0.0.0:0")
    try:
        with namespaces(2) as networks, Processes(tmp_path / "logs") as processes:
            for digit, network in enumerate(networks):
                name, folder = f"lab-{digit}", tmp_path / f"lab-{digit}"
                answer = joined(state, network, name, folder)
                assert answer["coordinator"].startswith(f"{network.here}:")
                rest = ["5", "6", "7", "8", "9"]
                data = {"kind": "digits", "class_name": str(digit), "rest": rest}
                values = {
                    "site": name,
                    "coordinator": answer["coordinator"],
                    "state": answer["state"],
                    "category": f"digit-{digit}",
                    "data": {**data, "part": digit + 1, "parts": 5},
                    "training": {"epochs": 1},
                }
                (folder / "lab.toml").write_text(tomli_w.dumps(values))
                command = (*ROOTSTOCK, "site", "run", "--config", str(folder / "lab.toml"))
                processes.start(name, network.command(*command), ENVIRONMENT)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while [each.state for each in running.registry.submissions.all()] != ["received"] * 2:
                processes.check()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            shipped = {each.site for each in running.registry.submissions.all()}
            assert shipped == {"lab-0", "lab-1"}
    finally:
        running.stop()
