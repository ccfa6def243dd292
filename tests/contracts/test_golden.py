"""Every release's state opens with the present code, reads as it did then, and grows on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.processes import Processes, free_ports
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from tests.contracts.golden import opening
from tests.contracts.promises import require
from tests.support.mlflow_server import MlflowServer

pytestmark = pytest.mark.timeout(600)

ENDED = ("merged", "rejected", "failed", "rolled_back")
PATIENCE_SECONDS = 240.0


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that starts while the net is read."""
    folder = tmp_path_factory.mktemp("mlflow")
    with Processes(folder) as processes:
        yield MlflowServer(processes, folder, *free_ports(1))


@pytest.fixture(params=opening.releases())
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(release: str, tmp_path: Path) -> Path:
    return opening.unpack(release, tmp_path)


@pytest.fixture
def promised(release: str) -> dict[str, Any]:
    return opening.expected(release)


def test_there_is_a_golden_federation() -> None:
    assert "0.1.0" in opening.releases()


def test_it_reads_as_its_own_release_read_it(
    config: Path, promised: dict[str, Any], mlflow: MlflowServer
) -> None:
    assert promised["commands"].keys() == opening.READING.keys()
    opening.serve(config, mlflow.uri)
    opening.upgrade(config)
    found = {
        name: opening.rootstock(config, *opening.READING[name], "--json")
        for name in opening.PROCESSES
    }
    found = {name: opening.answer(config, *argv) for name, argv in opening.READING.items()} | found
    require(found, promised["commands"])


def test_its_history_is_made_again_after_its_garbage_was_collected(
    config: Path, promised: dict[str, Any], mlflow: MlflowServer
) -> None:
    mlflow.wait()
    opening.serve(config, mlflow.uri)
    for blob in config.parent.glob("state/artifacts/blobs/*/*"):
        os.utime(blob, (0, 0))
    collected = opening.answer(config, "coordinator", "gc")
    assert collected["deleted"]["blobs"] > 0
    found = {name: opening.answer(config, *argv) for name, argv in opening.READING.items()}
    require(found, promised["commands"])
    found = opening.answer(config, "coordinator", "history", "rebuild")
    ended = {merge["merge_id"]: merge for merge in promised["merges"] if merge["state"] in ENDED}
    assert (found["made"], found["mended"], found["unchanged"]) == (len(ended), 0, 0)
    assert {merge["merge_id"] for merge in found["merges"]} == ended.keys()
    for merge in found["merges"]:
        was = ended[merge["merge_id"]]
        require(merge, {key: was[key] for key in ("category", "task", "state", "net_version")})


def test_a_coordinator_carries_it_on(
    config: Path, promised: dict[str, Any], mlflow: MlflowServer
) -> None:
    mlflow.wait()
    opening.serve(config, mlflow.uri)
    reviewed = next(merge for merge in promised["merges"] if merge["state"] == "reviewing")
    received = next(each for each in promised["submissions"] if each["state"] == "received")
    head = promised["commands"]["show"]["version"]
    with Processes(config.parent / "logs") as processes:
        processes.start(
            "coordinator",
            [*opening.ROOTSTOCK, "coordinator", "run", "--config", str(config)],
            opening.ENVIRONMENT,
        )
        address = config.parent / "state" / "address"
        _until(processes, address.exists)

        def state_of(submission: str) -> str:
            found = {each.submission_id: each for each in _status(address.parent).submissions}
            return found[submission].state

        # What was received and not decided about, is: nothing else has changed.
        _until(processes, lambda: state_of(received["submission_id"]) == "admitted")
        told = opening.rootstock(config, "coordinator", "status", "--json")
        assert told["net_version"] == str(head)
        merges = {merge["merge_id"]: merge for merge in told["merges"]}
        for was in promised["merges"]:
            names = ("category", "task", "operation", "state", "numbers")
            require(merges[was["merge_id"]], {name: was[name] for name in names if was[name]})
        assert {site["name"] for site in told["sites"]} >= {
            each["site"] for each in promised["submissions"]
        }
        # What waits for its operator's word is merged by it.
        word = ("approve", reviewed["merge_id"], "--reason", "golden")
        opening.rootstock(config, "coordinator", *word)
        _until(processes, lambda: _status(address.parent).net_version == head + 1)
    log = opening.answer(config, "net", "log")["versions"]
    require(log[1:], promised["commands"]["log"]["versions"])
    assert log[0]["merge"]["approved"] == "golden"
    verified = opening.answer(config, "net", "verify")
    assert verified == {"ok": True, "version": head + 1, "unsigned": 0, "problems": []}


def _status(state: Path) -> operator_pb2.GetStatusResponse:
    with OperatorClient(state) as operator:
        return operator.status()


def _until(processes: Processes, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        processes.check()
        assert time.monotonic() < deadline
        time.sleep(0.1)
