"""Whatever goes wrong with MLflow: it is said with its remedy, tried again, and ends nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
import tomli_w
from mlflow import MlflowClient

from rootstock.common.errors import (
    ConflictError,
    IdentityError,
    NotFoundError,
    RootstockError,
    UnreachableError,
)
from rootstock.coordinator.config import CoordinatorConfig, HistoryConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.rebuild import rebuild
from rootstock.coordinator.history.recorder import Recorder
from rootstock.coordinator.history.server import HOST
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import SubmissionState
from rootstock.deploy.client import OperatorClient
from rootstock.deploy.federation.processes import Processes, free_ports
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb
from tests.support.checkout import CHECKOUT
from tests.support.coordinator_context import receive, teacher
from tests.support.histories import history_at
from tests.support.merge_records import record
from tests.support.mlflow_server import MlflowServer, mlflow_server
from tests.support.odd_server import PAGE, Answer, odd_server
from tests.support.small_disk import run_on_disk

pytestmark = pytest.mark.timeout(300)


def failed_merges(context: CoordinatorContext, *categories: str) -> None:
    """Bring merges to their end."""
    for category in categories:
        submission = receive(context, teacher(context, f"{category}-lab", category))
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        context.fail_all(context.registry.submissions.get(submission), "no")


def at(context: CoordinatorContext, uri: str, **history: float) -> CoordinatorConfig:
    server = HistoryConfig.model_validate({"mlflow_uri": uri, "retry_seconds": 0.2, **history})
    return context.config.model_copy(update={"history": server})


def record_until(
    context: CoordinatorContext,
    config: CoordinatorConfig,
    condition: Callable[[HistoryState], bool],
) -> HistoryState:
    """Run the recorder until its state fulfils a condition; return that state."""

    async def run() -> HistoryState:
        recorder = Recorder(context, History.of(config))
        work = asyncio.create_task(recorder.run())
        async with asyncio.timeout(120):
            while not condition(recorder.state):
                await asyncio.sleep(0.02)
                assert not work.done()
        state = recorder.state
        work.cancel()
        return state

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(HTTPStatus.FORBIDDEN, PAGE), IdentityError, "MLFLOW_TRACKING_PASSWORD"),
        (Answer(HTTPStatus.UNAUTHORIZED, PAGE), IdentityError, "MLFLOW_TRACKING_PASSWORD"),
        (
            Answer(HTTPStatus.FORBIDDEN, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
            IdentityError,
            "MLFLOW_TRACKING_USERNAME",
        ),
        (Answer(403, PAGE, health=403), IdentityError, "NO_PROXY"),
        (Answer(HTTPStatus.BAD_REQUEST, PAGE), ConflictError, "history rebuild"),
        (Answer(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, PAGE), RootstockError, "sign in"),
        (Answer(HTTPStatus.INTERNAL_SERVER_ERROR, PAGE), UnreachableError, "log of its server"),
        (
            Answer(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                b'{"error_code": "INTERNAL_ERROR", "message": "database is locked"}',
            ),
            UnreachableError,
            "log of its server",
        ),
        (Answer(HTTPStatus.BAD_GATEWAY, PAGE), UnreachableError, "no proxy answers"),
        (Answer(body=PAGE), UnreachableError, "no proxy answers"),
        (Answer(body=b"[1, 2]"), UnreachableError, "no proxy answers"),
        (Answer(body=b'{"experiment": 7}'), UnreachableError, "no proxy answers"),
        (Answer(body=b'{"experiment": {"tags": "x"}}'), UnreachableError, "no proxy answers"),
        (Answer(body=b""), UnreachableError, "no proxy answers"),
        (Answer(hangs=True), UnreachableError, "timed out"),
        (Answer(cuts=True), UnreachableError, "no proxy answers"),
        (Answer(health=HTTPStatus.NOT_FOUND), UnreachableError, "start one"),
    ],
    ids=lambda value: f"{value.status} {value.body[:40]!r}" if isinstance(value, Answer) else None,
)
def test_what_answers_in_mlflow_s_place(
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    kind: type[RootstockError],
    words: str,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")  # restored after the test
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    with odd_server(answer) as uri:
        history = history_at(uri.replace("//", "//user:s3cret@"), "digits")
        with pytest.raises(kind) as raised:
            history.connect()
        errors: list[RootstockError] = [raised.value]
        assert words in str(raised.value)
        for call in (
            lambda: history.log_merge(record(["zero"])),
            lambda: history.restore(record(["zero"])),
            lambda: history.show_head(None, None),
        ):
            with pytest.raises(RootstockError) as also:
                call()
            errors.append(also.value)
        for error in errors:
            assert uri.replace("//", "//user:***@") in str(error)
            assert "s3cret" not in str(error)
            assert len(str(error)) < 900  # a page is cut


def unproxied_command(folder: Path, port: int, root: str) -> list[str]:
    """Return the command of a server whose clients write artifacts themselves, below `root`."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"),
        *("--no-serve-artifacts", "--default-artifact-root", root),
    ]


@contextmanager
def unproxied(folder: Path, root: str) -> Iterator[str]:
    (port,) = free_ports(1)
    folder.mkdir(mode=0o700)
    with Processes(folder / "logs") as processes:
        server = MlflowServer(processes, folder, port, argv=unproxied_command(folder, port, root))
        server.wait()
        yield server.uri


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("/proc/nowhere/artifacts", "FileNotFoundError"),
        ("s3://nobody-s-bucket/artifacts", "Credentials"),
        ("gopher://nowhere/artifacts", "gopher"),
    ],
    ids=["no such folder", "S3 without credentials", "no such store"],
)
def test_a_wrong_artifact_root_is_found_at_the_start(
    context: CoordinatorContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root: str,
    words: str,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with unproxied(tmp_path / "mlflow", root) as uri:
        state = record_until(context, at(context, uri), lambda state: bool(state.error))
        assert words in state.error
        assert root in state.error or words == "gopher"
        assert "--artifacts-destination" in state.error
        assert state.since > 0


def test_an_artifact_root_that_is_mended_is_written(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """By the one remedy: the right to write there."""
    failed_merges(context, "cat", "dog")
    root = tmp_path / "files"
    root.write_text("a file stands where the folder is needed")
    with unproxied(tmp_path / "mlflow", str(root)) as uri:
        config = at(context, uri)
        record_until(context, config, lambda state: "NotADirectoryError" in state.error)
        assert len(context.registry.merges.unlogged()) == 2
        root.unlink()
        state = record_until(context, config, lambda _: not context.registry.merges.unlogged())
        assert not list(root.rglob("rootstock-trial.txt"))
        assert len(list(root.rglob("merge.json"))) == 2
    assert (state.name, state.experiment_id != "") == ("digits", True)


def test_an_artifact_root_that_is_moved_is_written(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """By the other remedy: the server stores artifacts, in an experiment that is made anew."""
    failed_merges(context, "cat")
    folder = tmp_path / "mlflow"
    with unproxied(folder, "/proc/nowhere/artifacts") as uri:
        state = record_until(context, at(context, uri), lambda state: bool(state.error))
    assert "rename experiment 'digits'" in state.error
    with mlflow_server(folder) as uri:
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name("digits")
        assert experiment is not None
        client.rename_experiment(experiment.experiment_id, "digits, no artifacts")
        config = at(context, uri)
        record_until(context, config, lambda _: not context.registry.merges.unlogged())
        assert [merge.what for merge in rebuild(config).merges] == ["unchanged"]


def test_one_merge_that_cannot_be_logged_holds_up_no_other(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    failed_merges(context, "cat", "dog", "pig")
    cat, dog, pig = context.registry.merges.all()
    folder = tmp_path / "mlflow"
    with mlflow_server(folder) as uri:
        config = at(context, uri)
        history = History.of(config)
        client, namespace = MlflowClient(uri, uri), history.namespace()
        experiment = client.get_experiment(namespace.experiment_id)
        own = {
            "rootstock.merge_id": dog.id,
            "rootstock.coordinator": experiment.tags["rootstock.coordinator"],
        }
        run = client.create_run(namespace.experiment_id, tags=own)
        in_the_way = folder / "artifacts" / namespace.experiment_id / run.info.run_id
        in_the_way.parent.mkdir(parents=True, exist_ok=True)
        in_the_way.write_text("a file stands where the run's folder is needed")
        merges = context.registry.merges
        state = record_until(context, config, lambda state: bool(state.error))
        assert f"merge {dog.id} of net 'digits'" in state.error
        assert "see the log of its server" in state.error
        assert [merges.get(each.id).logged for each in (cat, dog, pig)] == [True, False, True]
        in_the_way.unlink()
        record_until(context, config, lambda _: not merges.unlogged())
        assert [merge.what for merge in rebuild(config).merges] == ["unchanged"] * 3


def test_files_on_their_way_are_in_the_state_folder(
    context: CoordinatorContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_merges(context, "cat")
    scratch = StatePaths(context.config).history
    for left in ("merge-files-of-a-crash", "somebody's"):
        (scratch / left).mkdir(parents=True)
        (scratch / left / "net.png").write_bytes(b"half")
    with mlflow_server(tmp_path / "mlflow") as uri:
        # TMPDIR is full, or gone.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        config = at(context, uri)
        record_until(context, config, lambda _: not context.registry.merges.unlogged())
    assert [path.name for path in scratch.iterdir()] == ["somebody's"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    script = """
from rootstock.coordinator.history.files import scratch_folder, write_files
from tests.support.merge_records import record
try:
    (disk / "filler").write_bytes(bytes(1 << 21))
except OSError as error:
    print(error.strerror)
try:
    with scratch_folder(disk / "history") as folder:
        write_files(record(["zero"]), folder)
except StorageError as error:
    print("told:", error)
"""
    told = run_on_disk(tmp_path, script)
    assert told.startswith("No space left on device\ntold: ")
    assert "No space left on device; free space on that disk" in told


@contextmanager
def coordinator(tmp_path: Path, mlflow_uri: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a coordinator as its operator does; whatever it says is in `log`."""
    values = {
        "net": "tiny",
        "state": str(tmp_path / "state"),
        "plan": {"architecture": {"name": "small-vgg", "split": "pool1"}},
        "server": {"listen": "127.0.0.1:0"},
        "jobs": {"local_cpus": 1},
        "history": {"mlflow_uri": mlflow_uri, "wait_seconds": 0.0, "retry_seconds": 0.5},
    }
    path = tmp_path / "coordinator.toml"
    path.write_text(tomli_w.dumps(values))
    command = [sys.executable, "-m", "rootstock.deploy.cli.main", "coordinator", "run"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--config", str(path)], stdout=log, stderr=log, cwd=CHECKOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def status_when(
    tmp_path: Path,
    process: subprocess.Popen[bytes],
    condition: Callable[[pb.HistoryStatus], bool],
) -> pb.GetStatusResponse:
    """Ask a coordinator for its status until a condition is fulfilled."""
    end = time.monotonic() + 100
    while True:
        assert process.poll() is None, (tmp_path / "log").read_text()
        try:
            with OperatorClient(tmp_path / "state") as operator:
                answer = operator.status()
                if condition(answer.history):
                    return answer
        except (NotFoundError, UnreachableError):
            pass
        assert time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.1)


def test_a_coordinator_serves_without_mlflow_and_finds_it_when_it_comes(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"http://user:s3cret@{HOST}:{port}"
    with coordinator(tmp_path, address) as process:
        answer = status_when(tmp_path, process, lambda history: bool(history.error))
        assert f"MLflow at http://user:***@{HOST}:{port} does not answer" in answer.history.error
        assert "mlflow server --host 127.0.0.1" in answer.history.error  # as is done next
        assert answer.history.failing_since
        assert answer.mlflow_uri == f"http://user:***@{HOST}:{port}"
        with mlflow_server(tmp_path / "mlflow", port):
            answer = status_when(tmp_path, process, lambda history: bool(history.page))
            assert answer.history.page.startswith(f"http://{HOST}:{port}/#/experiments/")
            assert answer.history.name == "tiny"
            answer = status_when(tmp_path, process, lambda history: not history.error)
            assert answer.history.failing_since == ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "s3cret" not in (tmp_path / "log").read_text()
    assert "s3cret" not in str(answer)


def test_a_coordinator_stops_at_once_while_mlflow_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setitem(os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with odd_server(Answer(hangs=True)) as uri, coordinator(tmp_path, uri) as process:
        status_when(tmp_path, process, lambda _: True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
