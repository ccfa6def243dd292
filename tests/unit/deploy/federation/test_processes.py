from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rootstock.common.errors import UnreachableError
from rootstock.deploy.federation.processes import ProcessEndedError, Processes, free_ports

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
PARENT = (
    "import subprocess, sys, time; "
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); "
    "print('child', child.pid, flush=True); time.sleep(60)"
)


def _wait_for(path: Path, text: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{text!r} did not appear in {path}")


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_what_a_process_started_is_stopped_with_it(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("parent", [sys.executable, "-c", PARENT])
        said = _wait_for(processes.log_of("parent"), "child")
        child = int(said.split("child")[1].split()[0])
        assert _alive(child)
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def test_a_process_that_ends_early_is_reported_with_its_code_and_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("short", [sys.executable, "-c", "print('the reason'); raise SystemExit(6)"])
        processes._running["short"].wait(20)
        with pytest.raises(ProcessEndedError, match=r"short ended with exit code 6[\s\S]*reason"):
            processes.check()


def test_all_are_stopped_when_the_work_fails(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        with Processes(tmp_path) as processes:
            processes.start("one", [sys.executable, "-c", SLEEPER])
            _wait_for(processes.log_of("one"), "up")
            started.append(processes._running["one"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert [process.returncode for process in started] == [-signal.SIGTERM]


def test_an_interrupt_within_a_destructor_is_not_lost(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from rootstock.deploy.federation.processes import Processes, interrupt_on_signals\n"
        "class Channel:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "interrupt_on_signals()\n"
        "processes = Processes(Path(sys.argv[1]))\n"
        "processes.check()\n"
        "channel = Channel()\n"
        "del channel\n"
        "print('goes on', flush=True)\n"
        "try:\n"
        "    processes.check()\n"
        "except KeyboardInterrupt:\n"
        "    print('and is interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["goes on", "and is interrupted"]


def test_a_machine_without_loopback_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(
        UnreachableError, match=r"127\.0\.0\.1: Cannot assign .*; give this machine"
    ):
        free_ports(1)
