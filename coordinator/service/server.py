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
from rootstock.common.heap import share_heaps
from rootstock.common.transport.channel import Address, parse_address, server_options
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import Collector
from rootstock.coordinator.history_state import HistoryState
from rootstock.coordinator.identity.authority import NetAuthority
from rootstock.coordinator.identity.guard import Guard
from rootstock.coordinator.identity.members import Members
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.service import enrolment
from rootstock.coordinator.service.downloads import Downloads
from rootstock.coordinator.service.enrolment import MAX_CALLS, MAX_MESSAGE_BYTES, Enrolment
from rootstock.coordinator.service.federation import Federation
from rootstock.coordinator.service.interceptors import CallInterceptor, ErrorInterceptor
from rootstock.coordinator.service.operator import Operator
from rootstock.coordinator.service.tls import ServerCertificate
from rootstock.coordinator.service.uploads.sessions import UploadSessions
from rootstock.coordinator.service.watch import Subscriptions
from rootstock.protos.rootstock.federation.v1 import federation_pb2, federation_pb2_grpc
from rootstock.protos.rootstock.join.v1 import join_pb2_grpc
from rootstock.protos.rootstock.operator.v1 import operator_pb2, operator_pb2_grpc

SERVICES = (
    federation_pb2.DESCRIPTOR.services_by_name["Federation"].full_name,
    operator_pb2.DESCRIPTOR.services_by_name["Operator"].full_name,
)

SWEEP_SECONDS = 3600.0
"""Between sweeps of abandoned partial files, which are a day old: an hour more is no matter."""


class CoordinatorServer:
    """Serves Federation, Operator, health and reflection on one port, Enrolment on another."""

    def __init__(
        self,
        context: CoordinatorContext,
        committer: Committer,
        history: Callable[[], HistoryState],
    ) -> None:
        join_listen = context.config.server.join_listen
        self._listen = parse_address(context.config.server.listen)
        self._join_listen = None if join_listen is None else parse_address(join_listen)
        self._address = self._listen
        self._authority = NetAuthority(context.config)
        self._guard = Guard(context.registry, self._authority.certificate)
        self._registry = context.registry
        self._paths = StatePaths(context.config)
        self._subscriptions = Subscriptions(context.registry.events)
        self._health = health.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._ends: list[Callable[[], None]] = []
        self._chores: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("server")
        heads = HeadsFile(self._paths.heads).current
        downloads = Downloads(context, heads)
        self._uploads = UploadSessions(context, heads, downloads.allowed)
        self._collector = Collector(context, heads)
        self._members = members = Members(context.registry, self._authority, context.config)
        self._federation = Federation(
            context, heads, self._subscriptions, self._uploads, downloads, members
        )
        self._operator = Operator(
            context,
            committer,
            self._subscriptions,
            self._uploads,
            self._collector,
            members,
            history,
        )
        self._enrolment = Enrolment(members, context.key.public_key, lambda: self._address.port)

    async def start(self) -> Address:
        """Listen; return where, which is also written to the state folder's `address`.

        ConfigurationError if the address is not this machine's, or may not be taken;
        AddressInUseError if another process listens there.
        """
        share_heaps()
        _require_free(self._listen, "listen")
        if self._join_listen is not None:
            _require_free(self._join_listen, "join_listen")
        if self._authority.made:
            self._log.info("authority.made", fingerprint=self._authority.fingerprint)
        certificate = ServerCertificate(self._authority)
        await asyncio.to_thread(self._members.local_operator)
        self._ends = [
            self._guard.start(),
            self._registry.subscribe(self._subscriptions.notify),
        ]
        self._address = await self._serve_members(certificate)
        if self._join_listen is not None:
            await self._serve_strangers(self._join_listen, certificate)
        self._chores = [
            asyncio.create_task(self._sweep_now_and_then()),
            asyncio.create_task(self._collector.run()),
        ]
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await asyncio.to_thread(write_bytes, self._paths.address, str(self._address).encode())
        self._log.info("server.started", address=str(self._address))
        return self._address

    async def _serve_members(self, certificate: ServerCertificate) -> Address:
        server = grpc.aio.server(
            interceptors=[CallInterceptor(self._guard)], options=server_options()
        )
        federation_pb2_grpc.add_FederationServicer_to_server(self._federation, server)
        operator_pb2_grpc.add_OperatorServicer_to_server(self._operator, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
        )
        credentials = certificate.listener(members_only=True)
        return await self._start(server, self._listen, "listen", credentials)

    async def _serve_strangers(self, listen: Address, certificate: ServerCertificate) -> None:
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            options=[
                *server_options(MAX_MESSAGE_BYTES, MAX_CALLS),
                ("grpc.max_connection_age_ms", round(1000 * enrolment.CONNECTION_SECONDS)),
                ("grpc.max_connection_age_grace_ms", round(250 * enrolment.CONNECTION_SECONDS)),
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        join_pb2_grpc.add_EnrolmentServicer_to_server(self._enrolment, server)
        credentials = certificate.listener(members_only=False)
        address = await self._start(server, listen, "join_listen", credentials)
        await asyncio.to_thread(write_bytes, self._paths.join_address, str(address).encode())
        self._log.info("server.joining", address=str(address))

    async def _start(
        self,
        server: grpc.aio.Server,
        listen: Address,
        setting: str,
        credentials: grpc.ServerCredentials,
    ) -> Address:
        """Start a listener; `setting` is the key of `server` that says where."""
        try:
            port = server.add_secure_port(str(listen), credentials)
        except RuntimeError as error:  # lost the race since `_require_free`
            raise _in_use(listen, setting) from error
        await server.start()
        self._servers.append(server)
        return Address(listen.host, port)

    async def drain(self, grace_seconds: float = 5.0) -> None:
        """Say that it drains, end the watch streams, let other calls finish, then stop.

        Uploads that do not finish within the grace keep what is durable and resume later.
        """
        if not self._servers:
            return
        self._log.info("server.draining", grace_seconds=grace_seconds)
        await self._health.enter_graceful_shutdown()
        self._subscriptions.drain()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))
        for end in self._ends:
            end()
        self._servers = []

    async def _sweep_now_and_then(self) -> None:
        """Delete abandoned partial files, and renew the local operator's certificate in time."""
        while True:
            try:
                await self._uploads.sweep()
                await asyncio.to_thread(self._members.local_operator)
            except OSError as error:  # a StorageError, too: the next sweep may do better
                self._log.warning("server.chore_failed", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)


def _require_free(address: Address, setting: str) -> None:
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
            raise _in_use(address, setting) from error
        raise ConfigurationError(
            f'server.{setting} = "{address}" cannot be taken ({error.strerror}); name an address '
            "of this machine, and a port above 1023"
        ) from error


def _in_use(address: Address, setting: str) -> AddressInUseError:
    return AddressInUseError(
        f"another process listens on {address}; stop it, or set server.{setting} to another port "
        "(port 0 takes a free one)"
    )
