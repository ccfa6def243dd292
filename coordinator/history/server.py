"""An MLflow server of one's own: SQLite, a local folder, one worker, this machine only."""

from __future__ import annotations

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from rootstock.common.errors import AddressInUseError, UnreachableError

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""MLflow needs 8 s of CPU before it answers (two cores, warm disk); much longer is a fault."""
STOP_SECONDS = 10.0
LOG_TAIL = 12


def command(folder: Path, port: int) -> list[str]:
    """Return the command line of a server that keeps everything in `folder`."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{(folder / 'mlflow.db').resolve()}"),
        *("--artifacts-destination", str((folder / "artifacts").resolve())),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def environment() -> dict[str, str]:
    """Return what the server's environment adds to ours.

    MLflow 3 would start seven more processes for jobs on traces, which nothing here has: measured
    on two idle cores, 2.4 GB and both cores busy against 0.5 GB and 0.3% of one.
    """
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def is_healthy(port: int) -> bool:
    """Say whether a server on this machine answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class MlflowServer:
    """A server process with its log; as a context manager it is healthy inside.

    Parameters
    ----------
    folder
        Holds the database, the artifacts and `mlflow.log`; made if missing.
    port
        Port on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """The file that takes its output."""
        return self._folder / "mlflow.log"

    def __enter__(self) -> MlflowServer:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; `wait` says when it answers, so that other work can go on.

        Raises
        ------
        AddressInUseError
            If another process has the port.
        """
        self._require_free_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command(self._folder, self._port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment()},
                start_new_session=True,  # one group, so that stop reaches its workers
            )

    def wait(self) -> None:
        """Return when the server answers.

        Raises
        ------
        UnreachableError
            If it ends, or does not answer in time; shows the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(self._port):
            code = None if self._process is None else self._process.poll()
            if code is not None or self._process is None:
                raise self._failed(f"ended with exit code {code}")
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer within {START_SECONDS:g} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the whole process group: SIGTERM, a grace, SIGKILL to what is left."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal(process, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal(process, signal.SIGKILL)
            process.wait()

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise AddressInUseError(
                    f"MLflow cannot listen on {HOST}:{self._port}: another process has the port; "
                    "stop it or choose another port"
                ) from error

    def _failed(self, problem: str) -> UnreachableError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return UnreachableError(
            f"the MLflow server at {self.uri} {problem}; its log {self.log} ends with:\n"
            + "\n".join(lines[-LOG_TAIL:])
        )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
