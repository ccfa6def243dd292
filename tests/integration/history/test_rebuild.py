"""The history again from the ledger, against a real MLflow server process."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from mlflow import MlflowClient

from rootstock.common.errors import NotFoundError, UnreachableError
from rootstock.common.files import only_one
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.rebuild import RestoredMerge, rebuild
from rootstock.coordinator.history.recorder import Recorder
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import MergeState, SubmissionState
from rootstock.coordinator.service.messages import evaluation_report
from rootstock.deploy.federation.processes import free_ports
from rootstock.protos.rootstock.federation.v1.federation_pb2 import ReportEvaluationRequest
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import ZERO, evaluating, merge_runner, results
from tests.support.mlflow_server import mlflow_server

pytestmark = pytest.mark.timeout(600)


def grown(context: CoordinatorContext, folder: Path) -> None:
    """Bring a ledger to a net of two versions, a rejected merge and one that failed."""
    registry = context.registry
    folder.mkdir()
    merge = evaluating(context, folder)
    evaluation = registry.evaluations.of_merge(merge.id)
    assert evaluation is not None
    report = ReportEvaluationRequest(evaluation_id=evaluation.id, results=results(zero_sample=ZERO))
    registry.evaluations.report(evaluation.id, evaluation_report(report))
    runner = merge_runner(context)
    asyncio.run(runner.carry(merge.id))
    for category in ("cow", "pig"):
        submission = receive(context, teacher(context, f"{category}-lab", category))
        registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    cow, pig = registry.submissions.all(SubmissionState.ADMITTED)[-2:]
    rejected = registry.merges.create(cow.id, "cow", "classification", OperationKind.NEW_CATEGORY)
    for state in (MergeState.DISTILLING, MergeState.EVALUATING):
        registry.merges.advance(rejected.id, state, numbers=MergeNumbers(teacher_error=5.0))
    context.end(rejected, "cow-lab", MergeState.REJECTED, "acceptance: an error of 38.0%")
    context.fail_all(pig, "pig-lab could not evaluate the candidates")


def record_all(context: CoordinatorContext, config: CoordinatorConfig) -> None:
    """Log what the coordinator would log."""

    async def log() -> None:
        await Recorder(context, History.of(config)).log_all()

    asyncio.run(log())


def run_ids(client: MlflowClient, experiment: str) -> dict[str, str]:
    """Which run is a merge's."""
    runs = client.search_runs([experiment])
    return {run.data.tags["rootstock.merge_id"]: run.info.run_id for run in runs}


def shown(uri: str, net: str) -> dict[str, Any]:
    """Everything that MLflow shows of a net, without the ids that MLflow gives."""
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(net)
    assert experiment is not None
    runs = {}
    for found in client.search_runs([experiment.experiment_id]):
        run_id = found.info.run_id
        run = client.get_run(run_id)  # a search leaves inputs and outputs out
        name = run.data.tags["rootstock.merge_id"]
        assert name not in runs
        assert run.inputs is not None
        assert run.outputs is not None
        runs[name] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": {
                key: sorted((p.step, p.value) for p in client.get_metric_history(run_id, key))
                for key in run.data.metrics
            },
            "files": {(f.path, f.file_size) for f in client.list_artifacts(run_id)},
            "in": {
                client.get_logged_model(model.model_id).name for model in run.inputs.model_inputs
            },
            "out": {
                client.get_logged_model(model.model_id).name for model in run.outputs.model_outputs
            },
        }
    versions = {
        version.tags["rootstock.number"]: version.tags
        for version in client.search_model_versions(f"name = '{net}'")
    }
    aliases = {
        alias: client.get_model_version_by_alias(net, alias).tags["rootstock.number"]
        for alias in client.get_registered_model(net).aliases
    }
    return {"runs": runs, "versions": versions, "aliases": aliases}


def test_a_lost_or_damaged_history_comes_back_from_the_ledger(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    grown(context, tmp_path / "adapters")
    folder, port, net = tmp_path / "mlflow", *free_ports(1), context.config.net
    uri = f"http://127.0.0.1:{port}"
    there = context.config.history.model_copy(update={"mlflow_uri": uri})
    config = context.config.model_copy(update={"history": there})
    with mlflow_server(folder, port):
        record_all(context, config)
        before = shown(uri, net)
    assert {run["name"] for run in before["runs"].values()} == {
        "v1 cat → classification",
        "v2 dog → classification",
        "cow → classification (rejected)",
        "pig → classification (failed)",
    }
    assert before["aliases"] == {"current": "2", "previous": "1"}
    assert before["runs"]["mrg-0002"]["in"] == {"dog-lab-dog", "digits-v1"}
    assert before["runs"]["mrg-0002"]["out"] == {"digits-v2"}
    assert before["runs"]["mrg-0003"]["in"] == {"cow-lab-cow", "digits-v2"}

    shutil.rmtree(folder)
    with mlflow_server(folder, port):
        # Lost.
        assert {"made"} == {merge.what for merge in rebuild(config).merges}
        assert shown(uri, net) == before

        # Damaged, each run in another way.
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name(net)
        assert experiment is not None
        ids = run_ids(client, experiment.experiment_id)
        cat, dog, cow, pig = (ids[merge.id] for merge in context.registry.merges.all())
        client.delete_run(cat)
        client.log_metric(dog, "error", 99.0, step=7)  # a point cannot be taken back
        client.set_tag(cow, "rootstock.reason", "none")
        shutil.rmtree(folder / "artifacts" / experiment.experiment_id / pig)
        client.delete_registered_model_alias(net, "current")
        done = rebuild(config).merges
        assert [merge.what for merge in done] == ["made", "mended", "mended", "mended"]
        assert shown(uri, net) == before
        assert {merge.merge_id: merge.run_id for merge in done} == run_ids(
            client, experiment.experiment_id
        )

        # As its operator runs it.
        path = tmp_path / "coordinator.toml"
        path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
        command = [
            sys.executable,
            "-m",
            "rootstock.deploy.cli.main",
            "coordinator",
            "history",
            "rebuild",
        ]
        ran = subprocess.run(
            [*command, "--config", str(path), "--json"], capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
        assert (told["made"], told["mended"], told["unchanged"]) == (0, 0, 4)
        assert [merge["state"] for merge in told["merges"]] == [
            "merged",
            "merged",
            "rejected",
            "failed",
        ]

        # A merge that is rolled back is news, and while a coordinator runs that is its to log.
        context.registry.merges.advance("mrg-0002", MergeState.ROLLED_BACK)
        with only_one(StatePaths(config).state, "coordinator"):
            assert len(rebuild(config).merges) == 3
        assert context.registry.merges.unlogged() == ["mrg-0002"]
        record_all(context, config)
        assert client.get_run(done[1].run_id).data.tags["rootstock.state"] == "rolled_back"

        # So it is if it is rolled back while the history is being rebuilt.
        def roll_back(restored: RestoredMerge) -> None:
            if restored.merge_id == "mrg-0002":
                context.registry.merges.advance("mrg-0001", MergeState.ROLLED_BACK)

        context.registry.merges.update("mrg-0001", logged=True)
        context.registry.merges.update("mrg-0001", finished_at=4e9)  # the last to be looked at
        with only_one(StatePaths(config).state, "coordinator"):
            assert len(rebuild(config, roll_back).merges) == 3
        assert context.registry.merges.unlogged() == ["mrg-0001"]


def test_a_rebuild_without_a_coordinator_or_an_mlflow_says_so(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    there = context.config.history.model_copy(
        update={"mlflow_uri": f"http://127.0.0.1:{free_ports(1)[0]}"}
    )
    config: CoordinatorConfig = context.config.model_copy(update={"history": there})
    with pytest.raises(UnreachableError, match=r"history\.mlflow_uri"):
        rebuild(config)
    nobody = config.model_copy(update={"state": tmp_path / "nobody"})
    with pytest.raises(NotFoundError, match="no coordinator has run here"):
        rebuild(nobody)
