"""Commands that change a coordinator's state: its service carries them out where it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootstock.common.errors import ConflictError, IdentityError, NotFoundError, UnreachableError
from rootstock.common.files import only_one
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.merges.result import AcceptedJoin, LearnedTask, OperatorJoin
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.registry import SubmissionState
from rootstock.deploy.client import OperatorClient
from tests.support.coordinator_context import receive, teacher
from tests.support.coordinator_server import Lab, LabMaker, Running
from tests.support.identities import client_credentials
from tests.support.in_process_jobs import commit_merge

NEVER_WRITES = """
from rootstock.coordinator.registry.database import Database
def write(self):
    raise AssertionError("this process wrote to the database")
Database.write = write
from rootstock.deploy.cli.main import main
main()
"""


def rootstock(config: Path, *arguments: str, program: str = NEVER_WRITES) -> Any:
    command = [sys.executable, "-c", program, *arguments, "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_coordinator_that_runs_publishes_and_retires_heads_itself(
    coordinator: Running, config: Path
) -> None:
    before = coordinator.registry.events.after("cat-lab", 0, 100)
    published = rootstock(config, "coordinator", "heads", "publish", "--from", "initial")
    assert (published["number"], published["coordinator_runs"]) == (1, True)
    heads = HeadsFile(coordinator.paths.heads).current()
    assert heads is not None
    assert heads.task_modules == coordinator.plan.initial_task_modules
    retired = rootstock(config, "coordinator", "heads", "retire", "--reason", "too old")
    assert (retired["retired"], retired["coordinator_runs"]) == (1, True)
    assert HeadsFile(coordinator.paths.heads).current() is None
    after = coordinator.registry.events.after("cat-lab", 0, 100)
    assert [event.kind for event in after[len(before) :]] == ["heads", "heads"]


def test_a_command_stands_in_for_a_coordinator_that_is_down(
    coordinator: Running, config: Path
) -> None:
    coordinator.stop()
    program = "from rootstock.deploy.cli.main import main; main()"
    arguments = ("coordinator", "heads", "publish", "--from", "initial")
    assert rootstock(config, *arguments, program=program)["coordinator_runs"] is False
    with only_one(coordinator.paths.state, "coordinator"):  # it has just been started
        command = [sys.executable, "-c", program, *arguments, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == ConflictError.exit_code
    assert "another coordinator" in done.stderr


def test_another_coordinator_at_the_port_of_a_former_one_is_not_asked(
    coordinator: Running, tmp_path: Path
) -> None:
    state = tmp_path / "former"
    with only_one(state, "coordinator"):
        with pytest.raises(UnreachableError, match="former starts; try again"):
            OperatorClient(state)
        client_credentials().write(state / "identity" / "operator.pem")
        (state / "address").write_text(coordinator.paths.address.read_text())
        with OperatorClient(state) as operator, pytest.raises(IdentityError):
            operator.status()
    with (
        OperatorClient(state) as operator,
        pytest.raises(UnreachableError, match="former does not run; start it"),
    ):
        operator.status()


def test_what_is_not_in_the_store_is_not_queued(coordinator: Running, lab: LabMaker) -> None:
    """Another `artifacts` at the operator's: the blob that was learned is somewhere else."""
    blob = next(iter(coordinator.plan.initial_task_modules.values()))
    missing = blob.model_copy(update={"digest": "0" * 64})
    join = OperatorJoin(
        task_module=missing.digest,
        adapter=None,
        how="no adapter",
        error=1.0,
        learned_from=1,
        judged_on=1,
    )
    with OperatorClient(coordinator.paths.state) as operator:
        with pytest.raises(ConflictError, match="not founded"):
            operator.connect("cat", "round", join)
        founded(coordinator, lab("cat-lab"))
        with pytest.raises(NotFoundError, match=r"no blob 000.*`artifacts`"):
            operator.learn_task("round", LearnedTask(blob=missing, joins={"cat": join}), None)
        with pytest.raises(ConflictError, match="no category module 'dog'"):
            operator.learn_task("round", LearnedTask(blob=blob, joins={"dog": join}), None)
        assert [merge.task for merge in coordinator.registry.merges.all()] == ["classification"]
        (merge,) = operator.learn_task("round", LearnedTask(blob=blob, joins={"cat": join}), None)
        with pytest.raises(ConflictError, match="being merged already"):
            operator.learn_task("round", LearnedTask(blob=blob, joins={"cat": join}), None)
    queued = coordinator.registry.merges.get(merge)
    assert (queued.category, queued.task, queued.operation) == ("cat", "round", "learn-task")


def founded(coordinator: Running, lab: Lab) -> None:
    """Found the net on a teacher of the category cat."""
    registry = coordinator.registry
    receipt = lab.ship(lab.teacher("cat"))
    registry.submissions.set_state(receipt.submission_id, SubmissionState.ADMITTED)
    submission = registry.submissions.get(receipt.submission_id)
    merge = registry.merges.create(submission.id, "cat", "classification", OperationKind.FOUND)
    merge = registry.merges.update(merge.id, numbers=MergeNumbers(teacher_error=5.0))
    commit_merge(coordinator.context, merge, submission, AcceptedJoin())


def test_a_status_counts_what_the_history_shows(coordinator: Running, config: Path) -> None:
    context = coordinator.context
    for category in ("cat", "dog", "cow"):
        submission = receive(context, teacher(context, f"{category}-lab", category))
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        context.fail_all(context.registry.submissions.get(submission), "no room")
    context.registry.merges.update("mrg-0002", logged=True)
    told = rootstock(config, "coordinator", "status")
    assert told["history"] == {"logged": "1", "waiting": "2"}
    assert told["mlflow_experiment_id"] == "42"
