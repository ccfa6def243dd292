"""A local Ray is this machine's and this user's: no port to the network, no file to others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

LISTENING = """
import os, psutil, stat, tempfile
from pathlib import Path
import ray
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.local_ray import LocalRay

local = LocalRay(JobsConfig())
local.start()

@ray.remote
class Worker:
    def pid(self):
        return os.getpid()

worker = Worker.remote()
ray.get(worker.pid.remote())
me = psutil.Process()
for process in (me, *me.children(recursive=True)):
    for connection in process.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            print("port", connection.laddr.ip, process.name(), flush=True)
(folder,) = Path(tempfile.gettempdir()).glob("rootstock-ray-*")
sockets = [str(path) for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
print("folder", oct(folder.stat().st_mode & 0o777), folder, *sockets, flush=True)
input()
local.stop()
"""

OTHER_USER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
everyones, folder, *sockets = sys.argv[1:]
os.listdir(everyones)
for path in (folder, *sockets):
    try:
        if path == folder:
            os.listdir(path)
        else:
            with socket.socket(socket.AF_UNIX) as each:
                each.connect(path)
    except PermissionError:
        continue
    sys.exit(f"{path} is open to others")
print("nothing")
"""


@pytest.fixture
def everyones() -> Iterator[Path]:
    """Give a folder that everyone can list, as /tmp is; Unix sockets need short names."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_nobody_else_reaches_it(everyones: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING],
        env={**os.environ, "TMPDIR": str(everyones)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ports: dict[str, set[str]] = {}
        folder: list[str] = []
        for line in process.stdout:
            what, *words = line.split()
            if what == "port":
                ports.setdefault(words[0].removeprefix("::ffff:"), set()).add(words[1])
            if what == "folder":
                folder = words
                break
        assert set(ports) == {"127.0.0.1"}
        assert {"gcs_server", "raylet"} <= ports["127.0.0.1"]
        mode, path, *sockets = folder
        assert mode == "0o700"
        assert len(sockets) >= 2
        if os.getuid() == 0:  # only root may become another user
            other = subprocess.run(
                [sys.executable, "-c", OTHER_USER, str(everyones), path, *sockets],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert (other.stdout.strip(), other.stderr) == ("nothing", "")
        process.communicate("\n", timeout=60)
