"""Starts a quiet Ray of the coordinator's own, or joins a cluster that runs already."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from rootstock.common.errors import ConfigurationError, UnreachableError
from rootstock.coordinator.config import JobsConfig

OBJECT_STORE_BYTES = 100 << 20
"""Weights go through the artifact store, only JSON through Ray; its default is 30% of memory."""

MAX_SOCKET_PATH = 107
"""Longest path of a Unix socket on Linux; Ray puts its sockets below its folder."""

CONNECT_SECONDS = 5.0
"""How long the head of a cluster may take to accept a connection."""

WATCH_SECONDS = 5.0
"""Between two looks whether Ray lives; it takes some 15 s to find that a node does not."""

log = logging.getLogger(__name__)

_SOCKETS = "/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"


class LocalRay:
    """A Ray session: local, or joined by its address."""

    def __init__(self, config: JobsConfig) -> None:
        self._config = config
        self._folder: Path | None = None

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
        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def watch(self) -> None:
        """Watch Ray's node on this machine; raise UnreachableError once it has died.

        It cannot be started anew here, beside gRPC's threads (see `start`).
        """
        own = ray.get_runtime_context().get_node_id()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            nodes: list[dict[str, Any]] = await asyncio.to_thread(ray.nodes)
            if not any(node["NodeID"] == own and node["Alive"] for node in nodes):
                raise UnreachableError(
                    "jobs: Ray's node on this machine has died (is there enough memory?); start "
                    "the coordinator again: merges go on from their last checkpoints"
                )

    def _start_local(self) -> None:
        # Ray guards its ports by a token, else written to the user's home for good.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Ray's workers would run at nice 15: beside labs on one machine, merges then starve.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # A folder of its own: coordinators on one machine share neither sockets nor clean-up.
        folder = Path(tempfile.mkdtemp(prefix="rootstock-ray-"))
        if len(str(folder) + _SOCKETS) > MAX_SOCKET_PATH:
            folder.rmdir()
            raise ConfigurationError(
                f"{tempfile.gettempdir()}: too long a path for Ray's sockets, which may have "
                f"{MAX_SOCKET_PATH} characters; set TMPDIR to a shorter one, for example /tmp"
            )
        self._folder = folder
        ray.init(
            "local",
            num_cpus=self._config.local_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )

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
