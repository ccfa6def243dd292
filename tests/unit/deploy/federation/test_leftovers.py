"""Processes of a federation whose `up` is killed, and of one that `down` stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import ConflictError
from rootstock.common.files import only_one
from rootstock.deploy.federation.down import runs_in, stop_federation
from rootstock.deploy.federation.folder import locked
from rootstock.deploy.federation.leftovers import mark, marked, stop_marked

UP = """
import sys
from pathlib import Path
from rootstock.deploy.federation.folder import locked
from rootstock.deploy.federation.processes import Processes, interrupt_on_signals
state = Path(sys.argv[1])
with locked(state):
    interrupt_on_signals()
    with Processes(state / "logs", state) as processes:
        for number, script in enumerate(sys.argv[2:]):
            processes.start(f"child-{number}", [sys.executable, "-c", script])
        print("up", flush=True)
        processes.wait()
"""
SLEEPER = "import time; print('runs', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
PARENT = (
    f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); "
    "child.wait()"
)
SESSION = (  # as MLflow's and Ray's own processes may be, in a group of their own
    f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], "
    f"start_new_session=True); {SLEEPER}"
)
CHILDREN = (SLEEPER, PARENT, SESSION)
"""Five processes."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in psutil.process_iter(["environ"]):
        if any(str(tmp_path) in each for each in (process.info["environ"] or {}).values()):
            process.kill()


def up(
    state: Path, *children: str, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", UP, str(state), *children],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=before,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def ignore_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def running(state: Path, count: int) -> list[psutil.Process]:
    until(lambda: len(marked(state)) == count, f"{count} processes; there are {marked(state)}")
    return [psutil.Process(each.pid) for each in marked(state)]


def gone(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=60)[1] == []


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT],
)
def test_nothing_outlives_an_up_however_it_ends(state: Path, number: signal.Signals) -> None:
    with up(state, *CHILDREN) as parent:
        children = running(state, 5)
        guards = psutil.Process(parent.pid).children()
        parent.send_signal(number)
        parent.wait(60)
    assert gone(children + guards)
    with locked(state):
        pass


def test_the_death_of_the_session_is_the_end(state: Path) -> None:
    """A terminal that is closed sends SIGHUP to all who are in its session."""
    leader, terminal = os.openpty()
    command = [sys.executable, "-c", UP, str(state), *CHILDREN]
    parent = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    children = running(state, 5)
    os.close(leader)
    parent.wait(60)
    assert gone(children)


def test_nohup_goes_on(state: Path) -> None:
    with up(state, SLEEPER, before=ignore_hangups) as parent:
        children = running(state, 1)
        parent.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert parent.poll() is None
        assert children[0].is_running()
        parent.terminate()
        parent.wait(60)
    assert gone(children)


def test_down_ends_one_that_runs(state: Path) -> None:
    with up(state, *CHILDREN) as parent:
        children = running(state, 5)
        assert runs_in(state)
        assert [each.pid for each in stop_federation(state)] == [parent.pid]
        assert parent.wait(60) == -signal.SIGINT  # Python's code of an interruption
    assert gone(children)
    assert not runs_in(state)


def test_down_stops_what_is_left(state: Path) -> None:
    with up(state, *CHILDREN) as parent:
        children = running(state, 5)
        for guard in psutil.Process(parent.pid).children():
            if guard.pid not in {child.pid for child in children}:
                guard.kill()
        parent.kill()
    assert len(marked(state)) == 5
    assert len(stop_federation(state)) >= 3
    assert gone(children)
    assert stop_federation(state) == []


def test_what_does_not_end_is_killed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rootstock.deploy.federation.leftovers.STOP_SECONDS", 0.5)
    with subprocess.Popen(
        [sys.executable, "-c", DEAF], env=os.environ | mark("run", state), stdout=subprocess.PIPE
    ) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline()
        stop_marked(state)
        assert deaf.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("folder", "run", "is_stopped"),
    [("a", "1", True), ("a", "", True), ("a", "2", False), ("a/b", "1", False), ("", "1", False)],
)
def test_only_processes_of_the_folder_and_the_run_are_stopped(
    tmp_path: Path, folder: str, run: str, is_stopped: bool
) -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], env=os.environ | mark("1", tmp_path / "a")
    )
    try:
        until(lambda: bool(marked(tmp_path / "a")), "it starts")
        assert bool(stop_marked(tmp_path / folder, run)) is is_stopped
        assert (sleeper.poll() is not None) is is_stopped
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_lock_of_a_process_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with only_one(tmp_path, "up"):
        (tmp_path / "lock").write_text("1")  # another container's number
        with pytest.raises(ConflictError, match="process 1 uses it, of another user or container"):
            stop_federation(tmp_path)
