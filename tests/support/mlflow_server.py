"""An MLflow server as `rootstock up` runs it, for tests; but anybody may use it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rootstock.coordinator.history.server import HOST, command, environment, is_healthy, prepare
from rootstock.deploy.federation.processes import Processes, free_ports


class MlflowServer:
    """A server that starts at once; `wait` says when it answers, so that other work can go on."""

    def __init__(
        self, processes: Processes, folder: Path, port: int, *, argv: Sequence[str] = ()
    ) -> None:
        self.uri = f"http://{HOST}:{port}"
        self._processes, self._port = processes, port
        prepare(folder)
        plain = [sys.executable, "-m", "mlflow", "server", *command(port)[3:]]
        processes.start("mlflow", argv or plain, environment(folder), folder)

    def wait(self) -> None:
        while not is_healthy(self._port):
            self._processes.check()
            time.sleep(0.1)


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a server that keeps everything in `folder`; yield its address once it answers."""
    (free,) = free_ports(1)
    folder.mkdir(mode=0o700, exist_ok=True)
    with Processes(folder / "logs") as processes:
        server = MlflowServer(processes, folder, port or free)
        server.wait()
        yield server.uri
