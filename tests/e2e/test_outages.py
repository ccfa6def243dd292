"""What a coordinator rests on goes away in a merge; the net is the same in the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import UnreachableError
from rootstock.deploy.federation.processes import ProcessEndedError, Processes, free_ports
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusResponse
from tests.support.federation_processes import QUICK, Running, digits_federation, merge_of, merged
from tests.support.mlflow_server import MlflowServer

pytestmark = pytest.mark.e2e

AWAY_SECONDS = float(os.environ.get("ROOTSTOCK_TEST_AWAY_SECONDS", "3"))
"""How long each is away; the result must not depend on it."""

STEPS = {"distillation": {**QUICK, "steps": 3000}, "jobs": {"checkpoint_steps": 100}}


def at_step(least: int) -> Callable[[GetStatusResponse], bool]:
    def done(answer: GetStatusResponse) -> bool:
        merge = merge_of(answer, "one")
        assert merge is None or merge.state in ("queued", "distilling"), merge
        return merge is not None and merge.step >= least

    return done


@contextmanager
def federation(state: Path) -> Iterator[Running]:
    """Run a federation with an MLflow of its own that has founded its net."""
    (port,) = free_ports(1)
    config = digits_federation(**STEPS, history={"retry_seconds": 1.0})
    with Processes(state / "logs") as processes:
        MlflowServer(processes, state / "mlflow", port).wait()
        running = Running(config, state, f"http://127.0.0.1:{port}", processes)
        running.start_coordinator()
        running.start_site("lab-zero")
        running.until("the founding", merged("zero"))
        running.start_site("lab-one")
        yield running


def learned(running: Running) -> dict[str, str | None]:
    """Return the digests of all that was trained and learned."""
    tree = running.tree()
    modules = {**tree.category_modules, **tree.task_modules}
    digests: dict[str, str | None] = {name: each.blob.digest for name, each in modules.items()}
    for edge in tree.edges:
        adapter = None if edge.adapter is None else edge.adapter.blob.digest
        digests[f"{edge.category} to {edge.task}"] = adapter
    return digests


def raylet_of(running: Running) -> psutil.Process:
    coordinator = psutil.Process(running.processes.pid("coordinator"))
    return next(each for each in coordinator.children(recursive=True) if each.name() == "raylet")


def test_store_ray_and_mlflow_go_away_in_the_middle_of_a_merge(tmp_path: Path) -> None:
    with federation(tmp_path / "undisturbed") as running:
        running.until("the merge", merged("one"))
        expected = learned(running)

    with federation(tmp_path / "disturbed") as running:
        running.until("some steps", at_step(200))
        store, away = running.coordinator.state / "artifacts", tmp_path / "away"
        store.rename(away)
        log = running.processes.log_of("coordinator")
        while "the store's folder is not there" not in log.read_text():
            running.processes.check()
            time.sleep(0.1)
        time.sleep(AWAY_SECONDS)
        assert not store.exists(), "something was written where the disk is not mounted"
        away.rename(store)

        before = running.until("further steps", at_step(600))
        raylet_of(running).kill()
        with pytest.raises(ProcessEndedError) as ended:
            running.processes.wait()
        assert (ended.value.name, ended.value.code) == ("coordinator", UnreachableError.exit_code)
        time.sleep(AWAY_SECONDS)
        running.processes.restart("coordinator")
        after = running.until("the coordinator", lambda answer: merge_of(answer, "one") is not None)
        merge, earlier = merge_of(after, "one"), merge_of(before, "one")
        assert merge is not None
        assert earlier is not None
        # Carried on from a checkpoint, not begun again.
        assert (merge.merge_id, merge.step >= 500) == (earlier.merge_id, True)

        running.until("yet further steps", at_step(1500))
        os.killpg(running.processes.pid("mlflow"), signal.SIGSTOP)  # its workers, too
        running.until(
            "the merge", lambda answer: bool((m := merge_of(answer, "one")) and m.net_version)
        )
        time.sleep(AWAY_SECONDS)
        answer = running.until("an answer", lambda _: True)
        merge = merge_of(answer, "one")
        assert merge is not None
        assert not merge.logged
        os.kill(running.processes.pid("mlflow"), signal.SIGKILL)  # its stopped workers stay
        running.processes.restart("mlflow")
        answer = running.until("the record", merged("one"))
        assert [merge.net_version for merge in answer.merges] == [1, 2]
        assert learned(running) == expected
        assert "0 made" in running.run("coordinator", "history", "rebuild")
