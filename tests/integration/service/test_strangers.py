"""What anybody on the network costs the coordinator who has no certificate: next to nothing."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from rootstock.common.errors import LimitError
from rootstock.coordinator.service import enrolment
from tests.support.coordinator_process import serving
from tests.support.coordinator_server import Lab, Running

CALLS = 200
MAX_GROWTH = 20 << 20
CALL = "/rootstock.join.v1.Enrolment/Join"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """Return a header as a literal that is not indexed (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def half_a_call(address: str) -> bytes:
    """Return the beginning of a call whose message of 60 KiB ends in the middle."""
    headers = b"".join(
        header(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "https"),
            (":path", CALL),
            (":authority", address),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
    )
    message = b"\0" + struct.pack(">I", 60 << 10) + bytes(15 << 10)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return preface + frame(1, 4, 1, headers) + frame(0, 0, 1, message)


def connected(stack: ExitStack, address: str, *, tls: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    plain = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
    if not tls:
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return stack.enter_context(context.wrap_socket(plain))


def stall(stack: ExitStack, address: str, *, joins: bool, tls: bool) -> None:
    """Open a connection and say half of something."""
    try:
        sock = connected(stack, address, tls=tls)
        sock.sendall(half_a_call(address) if joins else bytes(1000))
    except OSError:  # it hung up on us, which is as well
        return


@pytest.mark.parametrize("calls", ["of a joiner", "without a handshake", "without a certificate"])
def test_stalled_calls_of_strangers_cost_little(tmp_path: Path, calls: str) -> None:
    state, joins = tmp_path / "state", calls == "of a joiner"
    with serving(state) as (process, members), ExitStack() as stack:
        address = (state / "join-address").read_text() if joins else members
        member = Lab("cat-lab", members, tmp_path / "labs")
        member.plan()
        server = psutil.Process(process.pid)
        before = server.memory_info().rss
        for _ in range(CALLS):
            stall(stack, address, joins=joins, tls=calls != "without a handshake")
        time.sleep(1)
        assert server.memory_info().rss - before < MAX_GROWTH
        assert member.plan().net == "animals"
        member.close()


def test_who_stalls_loses_his_place_to_who_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "CONNECTION_SECONDS", 2.0)
    running = Running(tmp_path / "state")
    with ExitStack() as stack:
        stack.callback(running.stop)
        for _ in range(2 * enrolment.MAX_CALLS):
            stall(stack, running.paths.join_address.read_text(), joins=True, tls=True)
        with pytest.raises(LimitError):
            Lab("cat-lab", running.address, tmp_path / "labs")
        time.sleep(4)
        Lab("cat-lab", running.address, tmp_path / "labs").close()
