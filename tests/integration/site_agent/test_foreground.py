"""`rootstock site run | status` and `coordinator status` as processes: what people see of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w

from rootstock.common.errors import RefusedError
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.site_agent.config import SiteConfig, TrainingConfig
from tests.support.agent_thread import running, site
from tests.support.centre import Centre

ROOTSTOCK = (sys.executable, "-m", "rootstock.deploy.cli.main")


def written(config: SiteConfig, path: Path) -> Path:
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    return path


def rootstock(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ROOTSTOCK, *words], capture_output=True, text=True, timeout=120)


@contextmanager
def site_run(toml: Path, output: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agent as a daemon does: in a session of its own, without a terminal."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*before, *ROOTSTOCK, "site", "run", "--config", str(toml)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_agent_tells_what_it_does_and_status_whether_it_runs(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=2))
        toml, output = written(config, tmp_path / "site.toml"), tmp_path / "output"
        status = ("site", "status", "--config", str(toml))
        nothing = rootstock(*status)
        assert nothing.returncode == 11
        assert "no agent has run here yet; start `rootstock site run`" in nothing.stderr

        with site_run(toml, output) as agent:
            until(lambda: b"waits for the coordinator" in output.read_bytes())
            shown = output.read_text()
            for stage in ("calls 127.0.0.1", "trains the teacher net", "ships the teacher net"):
                assert stage in shown
            assert all(line[2] == line[5] == ":" for line in shown.splitlines())
            assert json.loads(rootstock(*status, "--json").stdout)["runs"] is True

            log = config.state / "agent.log"
            log.rename(tmp_path / "agent.log.1")
            os.kill(agent.pid, signal.SIGHUP)  # what log rotation does: no terminal has gone
            with pytest.raises(subprocess.TimeoutExpired):
                agent.wait(2)
            agent.kill()
            agent.wait()
        killed = rootstock(*status)
        assert "runs       no, it was killed in the middle of that" in killed.stdout
        assert " UTC" in killed.stdout

        with site_run(toml, output) as agent:
            until(lambda: b"waits for the coordinator" in output.read_bytes())
            agent.terminate()
            assert agent.wait(30) == 0
        assert log.exists()
        stopped = rootstock(*status)
        assert "stopped; starts where it was" in stopped.stdout
        assert "runs       no; start" in stopped.stdout


@pytest.mark.parametrize(("before", "ends"), [((), True), (("nohup",), False)])
def test_a_closed_terminal_ends_an_agent_unless_nohup_keeps_it(
    tmp_path: Path, before: tuple[str, ...], ends: bool
) -> None:
    with Centre(tmp_path / "centre") as centre:
        config = site(tmp_path / "lab", centre.address, training=TrainingConfig(epochs=2))
        toml, output = written(config, tmp_path / "site.toml"), tmp_path / "output"
        main, terminal = os.openpty()
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["setsid", "--ctty", *before, *ROOTSTOCK, "site", "run", "--config", str(toml)],
                stdin=terminal,
                stdout=file,
                stderr=file,
            )
        os.close(terminal)
        try:
            until(lambda: b"waits for the coordinator" in output.read_bytes())
            os.close(main)  # the terminal is gone: the system sends SIGHUP
            if ends:
                assert process.wait(30) == 0
                assert b"stopped" in output.read_bytes()
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(3)
        finally:
            process.kill()
            process.wait()


def test_a_category_that_is_taken_is_known_before_anything_is_trained(tmp_path: Path) -> None:
    with Centre(tmp_path / "centre") as centre:
        first = site(tmp_path / "first", centre.address, training=TrainingConfig(epochs=2))
        with running(first) as agent:
            agent.until(lambda: agent.status().get("phase") == "watching")
        (submission,) = centre.registry.submissions.all()
        found = Operation(OperationKind.FOUND, "digit-0", "classification")
        centre.registry.merges.queue(submission.id, [found])
        second = site(
            tmp_path / "second", centre.address, site="lab-1", training=TrainingConfig(epochs=2)
        )
        with running(second) as agent:
            agent.thread.join(60)
        assert isinstance(agent.error, RefusedError)
        assert "nothing was trained: growth: category 'digit-0' is being merged" in str(agent.error)
        assert not (second.state / "training").exists()
        with running(first) as agent:  # what was trained and shipped before stays as it is
            agent.until(lambda: agent.status().get("phase") == "watching")


@pytest.mark.parametrize("command", ["status", "approve", "gc"])
def test_a_coordinator_that_does_not_run_is_told_with_the_remedy(
    tmp_path: Path, command: str
) -> None:
    with Centre(tmp_path / "centre") as centre:
        toml = tmp_path / "coordinator.toml"
        toml.write_text(tomli_w.dumps(centre.config.model_dump(mode="json", exclude_none=True)))
    words = {"approve": ("mrg-0001", "--reason", "x"), "gc": ("--dry-run",)}.get(command, ())
    ended = rootstock("coordinator", command, *words, "--config", str(toml))
    if command == "gc":  # it needs none
        assert ended.returncode == 0
    else:
        assert ended.returncode == 7
        assert "does not run; start it: rootstock coordinator run" in ended.stderr
