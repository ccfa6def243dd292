"""Settings of channels and servers, both sides in one place; every channel is TLS."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

import grpc
from cryptography import x509

from rootstock.common.errors import ConfigurationError
from rootstock.common.identity.certificates import net_of, server_name, to_pem
from rootstock.common.identity.credentials import Credentials

MAX_MESSAGE_BYTES = 4 << 20
"""No message is larger than a chunk (2 MiB at most) or a manifest (1 MiB) and what is around it."""

_COMMON: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Both ends may ping while no call is open: a lab watches for hours between merges, and
    # gateways drop silent connections after a few minutes (4 on some clouds).
    ("grpc.keepalive_time_ms", 60_000),
    # A peer that does not answer a ping for this long is lost.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # The default stops pinging after two pings without data, which is what a quiet watch is.
    ("grpc.http2.max_pings_without_data", 0),
]

CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Our own retry policy (full jitter, resumes at an offset) is the only one.
    ("grpc.enable_retries", 0),
    # After a cut, try again within seconds: the default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
]


MAX_STREAMS = 64
"""Calls that one connection may have open: what its messages may hold in memory is bounded by it.
An agent has three or four."""

WINDOW_BYTES = 256 << 10
"""What one stream may send ahead of what the server reads. gRPC's own probe of the line raises it
to some 10 MiB on a fast one: with 20 uploads at once, 120 MiB. One stream then takes 16 MiB/s at a
round trip of 50 ms (78 with the probe)."""

HANDSHAKE_SECONDS = 10
"""A connection that has not shown its certificate after this is ended."""


def server_options(
    max_receive_bytes: int = MAX_MESSAGE_BYTES, max_streams: int = MAX_STREAMS
) -> list[tuple[str, int]]:
    """Return the settings of a server that takes messages up to a size."""
    return [
        *_COMMON,
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_concurrent_streams", max_streams),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.server_handshake_timeout_ms", 1000 * HANDSHAKE_SECONDS),
        # A server answers pings that come more often than this with "too many pings" and hangs up;
        # half of the client's interval leaves room for jitter. The default is five minutes.
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        # Two coordinators on one port would each get half of the calls; the second must fail.
        ("grpc.so_reuseport", 0),
    ]


_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\.?")


class Address(NamedTuple):
    """The address that a server listens at."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host.rstrip(".").lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def unspecified(self) -> bool:
        """Whether it stands for every address of the machine, as 0.0.0.0 does."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(address: str) -> Address:
    """Read "host:port", "1.2.3.4:port" or "[::1]:port"."""
    host, colon, port = address.rpartition(":")
    valid = bool(colon) and port.isascii() and port.isdigit() and int(port[:6]) <= 65535
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        known = _is_ipv6(host)
    else:
        known = _HOST.fullmatch(host) is not None
    if not (valid and known):
        raise ConfigurationError(
            f"address {address!r} is not host:port; write for example 127.0.0.1:50051, "
            "coordinator.example.org:50051 or [::1]:50051"
        )
    return Address(host, int(port))


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """Open a member's channel to its coordinator; nothing is sent until the first call."""
    where = parse_address(address)
    proof = grpc.ssl_channel_credentials(
        credentials.authority_pem, credentials.key_pem, credentials.chain_pem
    )
    return grpc.secure_channel(str(where), proof, channel_options(where, credentials.net))


def open_joining_channel(address: Address, authority: x509.Certificate) -> grpc.Channel:
    """Open the channel of one who is to join: only the server proves who it is."""
    credentials = grpc.ssl_channel_credentials(to_pem(authority))
    return grpc.secure_channel(
        str(address), credentials, channel_options(address, net_of(authority))
    )


def channel_options(address: Address, net: str) -> list[tuple[str, int | str]]:
    """Return a channel's options: the server is the net's, at whatever address it is reached."""
    return [
        *CLIENT_OPTIONS,
        ("grpc.ssl_target_name_override", server_name(net)),
        # A proxy that the environment names cannot reach this machine's loopback.
        ("grpc.enable_http_proxy", int(not address.loopback)),
    ]


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
