"""Starts a quiet Ray of the coordinator's own, or joins a cluster that runs already."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from rootstock.common.errors import ConfigurationError, UnreachableError
from rootstock.coordinator.config import JobsConfig
from rootstock.coordinator.jobs.temporary import FOLDER_PREFIX, marked, temporary_folder

OBJECT_STORE_BYTES = 100 << 20
"""Weights go through the artifact store, only JSON through Ray; its default is 30% of memory."""

MAX_SOCKET_PATH = 107
"""Longest path of a Unix socket on Linux; Ray puts its sockets below its folder."""

CONNECT_SECONDS = 5.0
"""How long the head of a cluster may take to accept a connection."""

WATCH_SECONDS = 5.0
"""Between two looks whether Ray lives; it takes some 15 s to find that a node does not."""

ANSWER_SECONDS = 15.0
"""How long Ray may take to say which nodes live; it takes milliseconds when it is well."""

_NEEDED = ("raylet", "gcs_server")
"""Ray's processes without which no job runs."""

log = logging.getLogger(__name__)

_TOKEN = secrets.token_hex(32)
"""Ray reads it once in the life of a process."""

_SOCKETS = "/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"


class LocalRay:
    """A Ray session: local, or joined by its address."""

    def __init__(self, config: JobsConfig) -> None:
        self._config = config
        self._resources = ExitStack()
        self._dead = False

    def start(self) -> None:
        """Start a Ray on this machine, or join the cluster that the configuration names.

        Call it before anything in this process has started gRPC: Ray forks, and gRPC's threads
        do not survive a fork. Raises ConfigurationError if an actor fits on no node, and
        UnreachableError if the cluster does not answer.
        """
        # Ray prints news of its processes to the standard output, and has no switch for that.
        ray._private.worker.print_to_stdstream = _to_log
        with _own_sigterm():
            if self._config.ray_address is None:
                self._start_local()
            else:
                self._join(self._config.ray_address)
        try:
            self.require_room()
        except ConfigurationError:
            self.stop()
            raise

    def stop(self) -> None:
        """Leave Ray; a local one ends, and its folder is deleted."""
        if self._dead:
            self._dead = False
            _kill_all()
        ray.shutdown()
        self._resources.close()

    async def watch(self) -> None:
        """Watch Ray's node on this machine; raise UnreachableError once it has died.

        It cannot be started anew here, beside gRPC's threads (see `start`).
        """
        own = ray.get_runtime_context().get_node_id()
        stopped: set[str] = set()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            # One that is stopped and continued, by Ctrl-Z say, is well again.
            before, stopped = stopped, _stopped()
            reason = _broken() or _named(before & stopped) or await _asked(own)
            if reason is not None:
                self._dead = True
                raise UnreachableError(
                    f"jobs: {reason}; start the coordinator again: merges go on from their last "
                    "checkpoints"
                )

    def _start_local(self) -> None:
        # Of a cluster that this Ray has nothing to do with.
        for name in [name for name in os.environ if name.startswith(("RAY_AUTH_", "RAY_TLS_"))]:
            del os.environ[name]
        os.environ.pop("RAY_USE_TLS", None)
        # Ray guards its ports by a token, else written to the user's home for good.
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
        # Ray's workers would run at nice 15: beside labs on one machine, merges then starve.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray opens what it makes to everyone, its own folder too; none gets past the one around it.
        own = self._resources.enter_context(temporary_folder())
        folder = own / "r"
        if len(str(folder) + _SOCKETS) > MAX_SOCKET_PATH:
            self._resources.close()
            raise ConfigurationError(
                f"{folder.parent.parent}: too long a path for Ray's sockets, which may have "
                f"{MAX_SOCKET_PATH} characters; set TMPDIR to a shorter one, for example /tmp"
            )
        folder.mkdir()
        # Otherwise Ray takes the machine's address, whatever `_node_ip_address` says, and listens
        # at every one.
        constants = ray._private.ray_constants
        constants.ENABLE_RAY_CLUSTER = False
        self._resources.callback(setattr, constants, "ENABLE_RAY_CLUSTER", True)
        # Ray has its workers look for modules in the current folder first.
        with marked(own), chdir(folder):
            try:
                ray.init(
                    "local",
                    num_cpus=self._config.local_cpus,
                    object_store_memory=OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=str(folder),
                )
            # A plain Exception is what Ray raises where one of its processes died as it started.
            except Exception as error:
                raise UnreachableError(
                    f"jobs: Ray did not start ({error}; is there enough memory?); start the "
                    "coordinator again"
                ) from error

    def _join(self, address: str) -> None:
        head = None if address == "auto" else _host_and_port(address)
        try:
            if head is not None:
                # Ray would try for minutes, and print to the standard error meanwhile.
                socket.create_connection(head, CONNECT_SECONDS).close()
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise UnreachableError(
                f"jobs.ray_address = {address!r}: no Ray cluster answers there ({error}); start "
                "it (ray start --head), or take the key out for a local Ray"
            ) from error

    def require_room(self) -> None:
        """Raise ConfigurationError if an actor fits on no node: it would wait for ever."""
        needed = {"CPU": self._config.num_cpus, "GPU": self._config.num_gpus}
        every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["Resources"] for node in every if node["Alive"]]
        if any(all(node.get(k, 0) >= n for k, n in needed.items()) for node in nodes):
            return
        best = {k: max((node.get(k, 0) for node in nodes), default=0) for k in needed}
        raise ConfigurationError(
            f"jobs.num_cpus = {needed['CPU']:g} with jobs.num_gpus = {needed['GPU']:g} fits on no "
            f"node of Ray: the largest have {best['CPU']:g} CPUs and {best['GPU']:g} GPUs; lower "
            "the keys, or raise jobs.local_cpus or the cluster"
        )


def _node() -> Any:
    """Return the processes of Ray that this one has started."""
    return ray._private.worker._global_node


def _kill_all() -> None:
    """Kill Ray's processes and their workers: Ray would first ask what is dead, or stopped."""
    node = _node()
    workers = [
        int(pid)
        for _, process in node.live_processes()
        for thread in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in thread.read_text().split()
    ]
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _broken() -> str | None:
    """Say what is wrong with Ray's own processes and files on this machine."""
    node = _node()
    for kind, process in node.dead_processes():
        if kind in _NEEDED:
            return f"Ray's {kind} has ended with {process.returncode} (is there enough memory?)"
    if not node.all_processes:
        return None  # a cluster's, started elsewhere
    for socket_path in (node.raylet_socket_name, node.plasma_store_socket_name):
        if not Path(socket_path).exists():
            return (
                f"{socket_path} of Ray is gone; keep what cleans temporary folders away from "
                f"{FOLDER_PREFIX}*, or set TMPDIR to a folder that nobody cleans"
            )
    return None


def _stopped() -> set[str]:
    """Return Ray's own processes that SIGSTOP keeps from running."""
    return {
        kind
        for kind, process in _node().live_processes()
        if kind in _NEEDED and _state(process.pid) == "T"
    }


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:  # has just ended
        return ""
    return stat.rpartition(")")[2].split()[0]


def _named(stopped: set[str]) -> str | None:
    return f"Ray's {min(stopped)} is stopped (SIGSTOP)" if stopped else None


async def _asked(node_id: str) -> str | None:
    """Say what is wrong by the cluster's own account, or if it gives none within seconds."""
    answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
    # Not in the loop's threads, which are waited for at the end: one that asks a process that
    # is stopped waits for ever.
    threading.Thread(target=_ask, args=(answer,), daemon=True).start()
    try:
        # Not `wait_for`, which loses a cancellation that comes at the same time (Python 3.11).
        async with asyncio.timeout(ANSWER_SECONDS):
            nodes = await answer
    except TimeoutError:
        return f"Ray has not answered for {ANSWER_SECONDS:g} s"
    if any(node["NodeID"] == node_id and node["Alive"] for node in nodes):
        return None
    return "Ray's node on this machine has died (is there enough memory?)"


def _ask(answer: asyncio.Future[list[dict[str, Any]]]) -> None:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    with suppress(RuntimeError):  # the loop has ended
        answer.get_loop().call_soon_threadsafe(_tell, answer, nodes)


def _tell(answer: asyncio.Future[list[dict[str, Any]]], nodes: list[dict[str, Any]]) -> None:
    if not answer.done():
        answer.set_result(nodes)


def _host_and_port(address: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    if not separator or not host or "/" in host or not port.isdecimal():
        raise ConfigurationError(
            f"jobs.ray_address = {address!r}: give host:port of a cluster's head (ray start --head "
            'prints it) or "auto"; Ray Client addresses (ray://) are not supported'
        )
    return host, int(port)


def _to_log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001 - Ray's signature
    log.info("ray.printed: %s", " ".join(data["lines"]))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the process's SIGTERM handler: Ray sets one that exits without a drain."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, so Ray sets none either
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
