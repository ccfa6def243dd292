"""Compatible labs as real processes: heads published by themselves, joins that need no learning."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rootstock.deploy.federation.config import FederationConfig
from tests.support.checkout import CHECKOUT
from tests.support.federation_processes import Running, compatible_example, merged

pytestmark = pytest.mark.e2e

Federation = Callable[[FederationConfig], Running]
EXAMPLE = CHECKOUT / "deploy" / "examples" / "digits-compatible.toml"


def heads(running: Running, *words: str) -> Any:
    return running.json("coordinator", "heads", *words)


def test_labs_that_train_below_the_net_s_task_module_join_it_as_they_are(
    federation: Federation,
) -> None:
    config = compatible_example(EXAMPLE)
    running = federation(config.model_copy(update={"sites": config.sites[:2]}))
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    assert heads(running, "show") == {"heads": None}
    # The compatible one comes first: it waits for the founder's task module.
    for name in ("lab-one", "lab-zero"):
        running.start_site(name)
    for category in ("zero", "one"):
        running.until(f"the merge of {category}", merged(category))
    tree = running.tree()
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
            line["event"] == "heads.changed" and line["origin"] == "retired: a test"
            for line in lines
        )

    running.until("the labs to hear of it", told)
    assert heads(running, "show") == {"heads": None}
