"""History against a real MLflow server process."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from rootstock.common.errors import ConflictError, UnreachableError
from rootstock.coordinator.history.record import Tailored
from rootstock.deploy.federation.processes import ProcessEndedError, Processes, free_ports
from tests.support.histories import COORDINATOR, history_at
from tests.support.merge_records import digest, record
from tests.support.mlflow_server import MlflowServer

FILES = {"net.png", "errors.png", "merge.json", "report.html"}


def names(client: MlflowClient, run_id: str) -> set[str]:
    return {entry.path for entry in client.list_artifacts(run_id)}


def test_a_net_grows_in_mlflow(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "digits")
    history.check()
    founding, later = record(["zero"]), record(["zero", "one"])
    first = history.log_merge(founding)
    second = history.log_merge(later)
    history.show_head(later.digest, founding.digest)

    run = client.get_run(second)
    assert run.info.status == "FINISHED"
    assert run.data.tags["rootstock.parent.digest"] == founding.digest
    assert run.data.tags["rootstock.digest.category_module"] == digest("one")
    assert run.data.params["policy"] == "exp2"
    assert run.data.metrics["refined_error"] == 3.5
    assert [m.step for m in client.get_metric_history(second, "few-sample/loss")] == [0, 10, 20, 30]
    assert [m.value for m in client.get_metric_history(second, "error")] == [54.0, 31.25, 3.5]
    assert names(client, second) == FILES

    current = client.get_model_version_by_alias("digits", "current")
    previous = client.get_model_version_by_alias("digits", "previous")
    assert current.tags["rootstock.digest"] == later.digest
    assert current.run_id == second
    assert previous.run_id == first
    # The parent and the lab's teacher net went in, the child came out.
    assert run.inputs is not None
    assert run.outputs is not None
    went_in = {m.model_id: client.get_logged_model(m.model_id) for m in run.inputs.model_inputs}
    kinds = {model.model_type: f"models:/{name}" for name, model in went_in.items()}
    assert kinds.keys() == {"transplant net", "teacher net"}
    assert kinds["transplant net"] == previous.source
    assert [f"models:/{m.model_id}" for m in run.outputs.model_outputs] == [current.source]
    (samples,) = run.inputs.dataset_inputs
    assert digest("shared").startswith(samples.dataset.digest)
    assert samples.tags[0].value == "few samples"


def test_a_run_says_in_words_what_became_of_it(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "words")
    run = client.get_run(history.log_merge(record(["zero", "one"], net="words")))
    assert run.info.run_name == "v1 one → classification"
    assert run.data.tags["mlflow.note.content"].startswith("**Merged as net version 1")
    assert run.data.tags["mlflow.user"] == "lab-one"
    experiment = client.get_experiment_by_name("words")
    assert experiment is not None
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_names_with_a_dot_are_logged(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "net.two")
    merge = record(["zero"], net="net.two", site="lab.zero")
    history.log_merge(merge)
    history.show_head(merge.digest, None)
    current = client.get_model_version_by_alias("net.two", "current")
    assert current.source is not None
    assert client.get_logged_model(current.source.removeprefix("models:/")).name == "net-two-v0"


def test_what_a_recipe_learned_is_in_the_run(uri: str, client: MlflowClient) -> None:
    numbers = {"lambda/mnist/block1_1->relu1_2": 1.5, "error/classification": 3.0}
    history = history_at(uri, "transferred")
    run_id = history.log_merge(record(["cat"], net="transferred", teacher_numbers=numbers))
    run = client.get_run(run_id)
    assert run.data.metrics["teacher/lambda/mnist/block1_1 to relu1_2"] == 1.5
    assert run.data.metrics["teacher/error/classification"] == 3.0
    assert names(client, run_id) == FILES | {"recipe.png"}


def test_the_paths_of_a_tailored_net_are_in_the_run(uri: str, client: MlflowClient) -> None:
    numbers = {"alpha/block1_1": 0.75, "alpha/proxy1_block1_1": 0.25}
    tailored = Tailored(blocks=("block1_1", "block1_2"), paths=((1, 0, 0.75), (1, 1, 0.25)))
    history = history_at(uri, "tailored")
    merge = record(["cat"], net="tailored", teacher_numbers=numbers, tailored=tailored)
    run_id = history.log_merge(merge)
    run = client.get_run(run_id)
    assert run.data.metrics["teacher/alpha/proxy1_block1_1"] == 0.25
    assert names(client, run_id) == FILES | {"recipe.png"}


def test_any_key_that_a_lab_sends_is_logged(uri: str, client: MlflowClient) -> None:
    odd = ["", ".", "..", "/", "//a", "a//b", "../up", "a/./b", "a/", "é>/..", "a\nb\x00", "$x$"]
    odd += ["x" * 199 + "/y", "x" * 198 + "/./y", "/" * 300, "x" * 5000, "lambda/$\\frac$/a->b"]
    numbers = {key: 1e12 / (place + 1) for place, key in enumerate(odd)}
    history = history_at(uri, "odd")
    merge = record(["cat"], net="odd", teacher_numbers=numbers)
    run_id = history.log_merge(merge)
    shown = {k: v for k, v in client.get_run(run_id).data.metrics.items() if k[:8] == "teacher/"}
    assert shown["teacher/lambda/__frac_/a to b"] == numbers[odd[-1]]
    assert set(shown.values()) <= set(numbers.values())
    assert len(shown) > 10
    assert history.restore(merge) == ("unchanged", run_id)


def test_logging_a_merge_twice_gives_one_run(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "twice")
    merge = record(["zero"], net="twice")
    run_id = history.log_merge(merge)
    assert history.log_merge(merge) == run_id
    assert history_at(uri, "twice").log_merge(merge) == run_id
    assert len(client.search_runs([history.namespace().experiment_id])) == 1
    assert len(client.search_model_versions("name = 'twice'")) == 1
    assert len(client.get_metric_history(run_id, "error")) == 3


def test_a_run_cut_in_the_middle_is_completed(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "cut")
    merge = record(["zero"], net="cut")
    experiment = history.namespace().experiment_id
    own = {"rootstock.merge_id": merge.merge_id, "rootstock.coordinator": COORDINATOR}
    cut = client.create_run(experiment, tags=own)
    assert history.log_merge(merge) == cut.info.run_id
    assert names(client, cut.info.run_id) == FILES


def test_a_rejected_merge_is_a_run_and_no_version(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "rejected")
    history.log_merge(record(["zero"], net="rejected"))
    refused = record(
        ["zero", "one"],
        net="rejected",
        state="rejected",
        reason="too bad",
        number=None,
        digest=None,
    )
    run_id = history.log_merge(refused)
    run = client.get_run(run_id)
    assert run.data.tags["rootstock.reason"] == "too bad"
    assert "too bad" in run.data.tags["mlflow.note.content"]
    assert run.outputs is None or run.outputs.model_outputs == []
    assert len(client.search_model_versions("name = 'rejected'")) == 1


def test_a_rollback_shows_in_run_and_version_and_moves_the_aliases(
    uri: str, client: MlflowClient
) -> None:
    history = history_at(uri, "rolled")
    first, second = record(["zero"], net="rolled"), record(["zero", "one"], net="rolled")
    history.log_merge(first)
    run_id = history.log_merge(second)
    history.show_head(second.digest, first.digest)
    assert history.log_merge(second.model_copy(update={"state": "rolled_back"})) == run_id
    history.show_head(first.digest, None)
    run = client.get_run(run_id)
    assert run.data.tags["rootstock.state"] == "rolled_back"
    assert run.info.run_name == "one → classification (rolled back)"
    current = client.get_model_version_by_alias("rolled", "current")
    assert current.tags["rootstock.number"] == "0"
    (stood,) = client.search_model_versions("name = 'rolled' and tag.`rootstock.number` = '1'")
    assert stood.tags["rootstock.state"] == "rolled_back"
    aliases = client.get_registered_model("rolled").aliases
    assert aliases.keys() == {"current"}


def test_a_head_that_is_not_shown_yet_takes_the_alias_away(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "early")
    history.show_head(digest("version 0"), None)  # there is no registered model at all
    first = record(["zero"], net="early")
    history.log_merge(first)
    history.show_head(first.digest, None)
    assert client.get_registered_model("early").aliases.keys() == {"current"}
    history.show_head(digest("version 1"), first.digest)
    assert client.get_registered_model("early").aliases.keys() == {"previous"}


def test_a_deleted_experiment_comes_back(uri: str, client: MlflowClient) -> None:
    history = history_at(uri, "deleted")
    experiment = history.namespace().experiment_id
    client.delete_experiment(experiment)
    assert history.namespace().experiment_id == experiment


def test_a_number_that_is_another_merge_s_now_gets_a_run_of_its_own(
    uri: str, client: MlflowClient
) -> None:
    """The coordinator's database was put back from a backup of before the merge."""
    history = history_at(uri, "restored")
    before = record(["zero"], net="restored")
    after = before.model_copy(update={"parameters": {"policy": "exp1"}, "site": "lab-two"})
    old, new = history.log_merge(before), history.log_merge(after)
    assert old != new
    assert client.get_run(old).info.lifecycle_stage == "deleted"
    assert client.get_run(new).data.params["policy"] == "exp1"
    assert history.log_merge(after) == new


def test_what_mlflow_refuses_is_a_conflict(uri: str) -> None:
    history = history_at(uri, "refused")
    merge = record(["zero"], net="refused", parameters={"k" * 300: "too long a name"})
    with pytest.raises(ConflictError, match=r"refused merge m0 .*history rebuild"):
        history.log_merge(merge)


def test_a_missing_server_is_named_within_seconds() -> None:
    history = history_at(f"http://127.0.0.1:{free_ports(1)[0]}", "digits")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:.*start one"):
        history.check()
    with pytest.raises(UnreachableError, match=r"history\.mlflow_uri"):
        history.log_merge(record(["zero"]))
    assert time.monotonic() - started < 15


def test_another_server_is_no_mlflow() -> None:
    other = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=other.handle_request)
    thread.start()
    try:
        with pytest.raises(UnreachableError, match="501"):
            history_at(f"http://127.0.0.1:{other.server_port}", "digits").check()
    finally:
        thread.join()
        other.server_close()


def test_a_port_in_use_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken, Processes(tmp_path) as processes:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = MlflowServer(processes, tmp_path, taken.getsockname()[1])
        with pytest.raises(ProcessEndedError, match="in use"):
            server.wait()


def test_stopping_ends_every_process(tmp_path: Path) -> None:
    def mine() -> list[psutil.Process]:
        children = psutil.Process(os.getpid()).children(recursive=True)
        return [p for p in children if _folder(p) == str(tmp_path)]

    processes = Processes(tmp_path)
    MlflowServer(processes, tmp_path, *free_ports(1))
    assert len(mine()) == 1
    processes.stop()
    assert mine() == []


def _folder(process: psutil.Process) -> str:
    """Return where a process runs: MLflow's command names no path of its own."""
    try:
        return process.cwd()
    except psutil.NoSuchProcess:
        return ""
