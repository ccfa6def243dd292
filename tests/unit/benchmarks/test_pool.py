"""Workers of a benchmark end with it, also where it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_RUN = """
import os, time
from rich.console import Console
from tests.benchmarks.harness.pool import workers
from tests.support.worker_pid import pid

if __name__ == "__main__":
    with workers(1, Console(stderr=True)) as run:
        print(*run.run("pid", pid, [0]), flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process")
def test_a_worker_ends_with_a_killed_benchmark(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as benchmark:
        assert benchmark.stdout is not None
        worker = int(benchmark.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        benchmark.send_signal(signal.SIGKILL)
        benchmark.wait()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"
