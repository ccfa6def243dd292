"""The main job, as a new user runs it: one command, real processes, real data."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from rootstock.common.config import load
from rootstock.common.nets.composed import load_composed
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.net.reader import NetReader
from tests.support.mlflow_server import mlflow_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "state"


@pytest.fixture(scope="module")
def answer(folder: Path) -> dict[str, Any]:
    """Run the demo once; standard output holds one JSON object and nothing else."""
    done = subprocess.run(
        [*ROOTSTOCK, "demo", "--json", "--state", str(folder)],
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def _cli(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    config = folder / "configuration" / "coordinator.toml"
    return subprocess.run(
        [*ROOTSTOCK, *argv, "--config", str(config)], capture_output=True, text=True, timeout=120
    )


def test_five_categories_and_four_merges(answer: dict[str, Any]) -> None:
    rows = answer["categories"]
    assert {"zero", "one", "two", "three", "four"} == {row["category"] for row in rows}
    assert [row["net_version"] for row in rows] == [1, 2, 3, 4, 5]
    assert ["found", *["new-category"] * 4] == [row["operation"] for row in rows]
    assert {"merged"} == {row["status"] for row in rows}
    assert {10} == {row["few_samples"] for row in rows[1:]}
    assert answer["net_version"] == 5


def test_nobody_else_reads_what_it_has_made(answer: dict[str, Any], folder: Path) -> None:
    command = ["find", str(folder), "!", "-type", "l", "-perm", "/077"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == ""
    names = {each.name for each in folder.rglob("*")}
    assert {"registry.sqlite", "mlflow.db", "password", "agent.log", "spool", "ledger"} <= names


def test_refined_at_the_lab_the_mean_error_is_within_4_points_of_the_teachers(
    answer: dict[str, Any],
) -> None:
    rows = answer["categories"][1:]

    def average(name: str) -> float:
        return float(mean(row[name] for row in rows))

    teacher, refined = average("teacher_error"), average("refined_error")
    assert refined <= teacher + 4.0
    # With ten samples the coordinator alone may already be at the teacher's: one validation image
    # is about one point, and refinement may not cost more than that.
    assert refined <= average("few_sample_error") + 1.0
    assert average("few_sample_error") <= teacher + 4.0
    # Zero samples: at most a third of the way from the teacher to no adapter with the two numbers
    # that the lab sends back; by itself the threshold of one digit or another may be off.
    gap = average("no_adapter_error") - teacher
    assert gap > 15
    assert average("zero_sample_uncalibrated_error") - teacher <= 0.6 * gap
    assert average("zero_sample_error") - teacher <= 0.35 * gap


def test_an_edge_holds_the_calibration_that_its_lab_reported(
    answer: dict[str, Any], folder: Path
) -> None:
    with NetReader.open(
        load(folder / "configuration" / "coordinator.toml", CoordinatorConfig)
    ) as v:
        edges, commits = v.tree(5).edges, {c.merge["category"]: c for c in v.history(5)}
    for edge in edges:
        record = commits[edge.category].merge
        name = record["candidate"]
        expected = (record.get(f"{name}_scale", 1.0), record.get(f"{name}_bias", 0.0))
        assert (edge.calibration.scale, edge.calibration.bias) == expected
    # An edge whose holdout had nothing to gain stays as it is; test_evaluating has one that gains.


def test_nothing_that_it_started_is_left(answer: dict[str, Any], folder: Path) -> None:
    def ours() -> list[str]:
        told = [p.info for p in psutil.process_iter(["cmdline", "cwd"])]
        lines = [" ".join([*(each["cmdline"] or ()), "in", each["cwd"] or ""]) for each in told]
        return [line for line in lines if str(folder) in line]

    deadline = time.monotonic() + 20
    while ours() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ours() == []


def test_every_version_is_whole_and_holds_its_parent_s_digests(
    answer: dict[str, Any], folder: Path
) -> None:
    done = _cli(folder, "net", "verify", "--json")
    assert done.returncode == 0, done.stderr
    well = {"ok": True, "version": 5, "unsigned": 0, "problems": []}
    assert json.loads(done.stdout) == well


def test_verify_names_a_blob_that_is_gone_and_nothing_else_fails(
    answer: dict[str, Any], folder: Path
) -> None:
    with NetReader.open(
        load(folder / "configuration" / "coordinator.toml", CoordinatorConfig)
    ) as v:
        adapter = v.tree(5).edge(answer["categories"][4]["category"], "classification").adapter
        assert adapter is not None
        path = v.store.local_path(adapter.blob.digest)
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    try:
        done = _cli(folder, "net", "verify", "--json")
        assert done.returncode == 1
        problems = json.loads(done.stdout)["problems"]
        assert [adapter.blob.digest in problem["where"] for problem in problems] == [True]
        assert _cli(folder, "net", "verify", "--version", "4").returncode == 0
    finally:
        hidden.rename(path)


def test_a_composed_net_can_be_taken_away(
    answer: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    category = answer["categories"][1]["category"]
    out = tmp_path / "net.safetensors"
    done = _cli(
        folder, "net", "export",
        "--category", category, "--task", "classification", "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    net = load_composed(out)
    assert sum(parameter.numel() for parameter in net.parameters()) > 10_000


def test_a_composition_that_is_not_joined_is_refused(
    answer: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net.safetensors"
    done = _cli(
        folder, "net", "export",
        "--category", "nine", "--task", "classification", "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 11
    assert "'nine' is not joined to task 'classification'; joined are:" in done.stderr
    assert not out.exists()


@pytest.fixture(scope="module")
def history(answer: dict[str, Any], folder: Path) -> Iterator[MlflowClient]:
    with mlflow_server(folder / "mlflow") as uri:
        yield MlflowClient(uri, uri)


def test_mlflow_lists_the_merges_with_pictures_and_tags(history: MlflowClient) -> None:
    experiment = history.get_experiment_by_name("digits")
    assert experiment is not None
    runs = history.search_runs([experiment.experiment_id])
    assert len(runs) == 5
    for run in runs:
        pictures = {file.path for file in history.list_artifacts(run.info.run_id)}
        assert {"net.png", "errors.png"} <= pictures
        assert len(run.data.tags["rootstock.digest"]) == 64
        assert len(run.data.tags["rootstock.digest.category_module"]) == 64
    transplanted = [run for run in runs if run.data.tags["rootstock.operation"] == "new-category"]
    assert len(transplanted) == 4
    for run in transplanted:
        assert run.data.tags["rootstock.parent.number"]
        curve = history.get_metric_history(run.info.run_id, "few-sample/loss")
        assert len(curve) > 10


def test_the_newest_version_is_the_current_registered_model(history: MlflowClient) -> None:
    current = history.get_model_version_by_alias("digits", "current")
    assert current.tags["rootstock.number"] == "5"


def test_an_interruption_stops_everything(tmp_path: Path) -> None:
    state = tmp_path / "state"
    demo = subprocess.Popen(
        [*ROOTSTOCK, "demo", "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (state / "configuration" / "lab-four.toml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.0)
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) >= 7  # five agents, a coordinator, an MLflow server
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
