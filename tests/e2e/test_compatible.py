"""Compatible labs as real processes: heads published by themselves, joins that need no learning."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.nets.graph import NetTree
from coordinator.view import NetView
from deploy.federation.config import FederationConfig, read
from tests.e2e.federation import ROOTSTOCK, Running, merged

pytestmark = pytest.mark.e2e

Federation = Callable[[FederationConfig], Running]
EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "digits-compatible.toml"


def two_labs() -> FederationConfig:
    """Return the example, with fewer labs and epochs, and a bound that tells the recipes apart.

    Labs that are not compatible have errors of 40% and more with no adapter.
    """
    config = read(EXAMPLE)
    site = {**config.site, "training": {**config.site["training"], "epochs": 12}}
    coordinator = {**config.coordinator}
    coordinator["acceptance"] = {**coordinator["acceptance"], "max_above_teacher": 15.0}
    return config.model_copy(
        update={"site": site, "coordinator": coordinator, "sites": config.sites[:2]}
    )


def heads(running: Running, *words: str) -> Any:
    config = running.state / "configuration" / "coordinator.toml"
    command = [*ROOTSTOCK, "coordinator", "heads", *words, "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tree_of(running: Running) -> NetTree:
    with NetView.open(running.coordinator) as view:
        assert view.head is not None
        return view.tree(view.head)


def test_labs_that_train_below_the_net_s_task_module_join_it_as_they_are(
    federation: Federation,
) -> None:
    running = federation(two_labs())
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    assert heads(running, "show") == {"heads": None}
    # The compatible one comes first: it waits for the founder's task module.
    for name in ("lab-one", "lab-zero"):
        running.start_site(name)
    for category in ("zero", "one"):
        running.until(f"the merge of {category}", merged(category))
    tree = tree_of(running)
    assert [edge.category for edge in tree.edges if edge.adapter is None] == ["one", "zero"]
    found = heads(running, "show")["heads"]
    assert (found["number"], found["origin"]) == (1, "net version 1")
    digest = tree.task_modules["classification"].blob.digest
    assert found["task_modules"]["classification"]["digest"] == digest
    edge = tree.edge("one", "classification")
    assert edge.error is not None
    assert edge.error <= 20.0

    retired = heads(running, "retire", "--reason", "a test")
    assert retired == {"retired": 1, "coordinator_runs": True}
    log = running.state / "sites" / "lab-one" / "agent.log"

    def told(_: Any) -> bool:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return any(
            line["event"] == "heads changed" and line["origin"] == "retired: a test"
            for line in lines
        )

    running.until("the labs to hear of it", told)
    assert heads(running, "show") == {"heads": None}
