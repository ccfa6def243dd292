"""The coordinator's gRPC server: where it listens, how it starts, drains and stops."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from rootstock.common.errors import AddressInUseError, ConfigurationError
from rootstock.common.files import write_bytes
from rootstock.common.transport.channel import SERVER_OPTIONS, Address, require_loopback
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import Collector
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.service.downloads import Downloads
from rootstock.coordinator.service.federation import Federation
from rootstock.coordinator.service.interceptors import CallInterceptor
from rootstock.coordinator.service.operator import Operator, load_or_create_token
from rootstock.coordinator.service.uploads.sessions import UploadSessions
from rootstock.coordinator.service.watch import Subscriptions
from rootstock.protos.rootstock.federation.v1 import federation_pb2, federation_pb2_grpc
from rootstock.protos.rootstock.operator.v1 import operator_pb2, operator_pb2_grpc

SERVICES = (
    federation_pb2.DESCRIPTOR.services_by_name["Federation"].full_name,
    operator_pb2.DESCRIPTOR.services_by_name["Operator"].full_name,
)

SWEEP_SECONDS = 3600.0
"""Between sweeps of abandoned partial files, which are a day old: an hour more is no matter."""


class CoordinatorServer:
    """Serves Federation, Operator, health and reflection on one port."""

    def __init__(
        self,
        context: CoordinatorContext,
        committer: Committer,
        history: Callable[[], HistoryState],
    ) -> None:
        self._listen = require_loopback(context.config.server.listen)
        self._registry = context.registry
        self._paths = StatePaths(context.config)
        self._subscriptions = Subscriptions()
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._chores: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("server")
        heads = HeadsFile(self._paths.heads).current
        downloads = Downloads(context, heads)
        self._uploads = UploadSessions(context, heads, downloads.allowed)
        self._collector = Collector(context, heads)
        self._federation = Federation(context, heads, self._subscriptions, self._uploads, downloads)
        self._operator = Operator(
            context, committer, self._subscriptions, self._uploads, self._collector, history
        )

    async def start(self) -> Address:
        """Listen; return where, which is also written to the state folder's `address`.

        ConfigurationError if the address is not this machine's, or may not be taken;
        AddressInUseError if another process listens there.
        """
        _require_free(self._listen)
        token = load_or_create_token(self._paths.operator_token)
        server = grpc.aio.server(
            interceptors=[CallInterceptor(self._registry, token)], options=SERVER_OPTIONS
        )
        federation_pb2_grpc.add_FederationServicer_to_server(self._federation, server)
        operator_pb2_grpc.add_OperatorServicer_to_server(self._operator, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        try:
            port = server.add_insecure_port(str(self._listen))
        except RuntimeError as error:  # lost the race since `_require_free`
            raise _in_use(self._listen) from error
        self._unsubscribe = self._registry.subscribe(self._subscriptions.notify)
        await server.start()
        self._server = server
        self._chores = [
            asyncio.create_task(self._sweep_now_and_then()),
            asyncio.create_task(self._collector.run()),
        ]
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        address = Address(self._listen.host, port)
        await asyncio.to_thread(write_bytes, self._paths.address, str(address).encode())
        self._log.info("server.started", address=str(address))
        return address

    async def drain(self, grace_seconds: float = 5.0) -> None:
        """Say that it drains, end the watch streams, let other calls finish, then stop.

        Uploads that do not finish within the grace keep what is durable and resume later.
        """
        if self._server is None:
            return
        self._log.info("server.draining", grace_seconds=grace_seconds)
        await self._health.enter_graceful_shutdown()
        self._subscriptions.drain()
        for chore in self._chores:
            chore.cancel()
        await self._server.stop(grace_seconds)
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._server = None

    async def _sweep_now_and_then(self) -> None:
        while True:
            try:
                await self._uploads.sweep()
            except OSError as error:  # a StorageError, too: the next sweep may do better
                self._log.warning("upload.sweep_failed", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)


def _require_free(address: Address) -> None:
    """Try the address with a plain socket: the reason of a failure is clearer than gRPC's."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Does not let two listen: it only ignores connections that are winding down.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _in_use(address) from error
        raise ConfigurationError(
            f'server.listen = "{address}" cannot be taken ({error.strerror}); name an address '
            "of this machine, and a port above 1023"
        ) from error


def _in_use(address: Address) -> AddressInUseError:
    return AddressInUseError(
        f"another process listens on {address}; stop it, or set server.listen to another port "
        "(port 0 takes a free one)"
    )
