"""Another user of the machine, beside `rootstock up`: reads no file, and no port answers him."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import tomli_w

from rootstock.coordinator.history.gate import USER
from rootstock.coordinator.history.server import password_of
from tests.support.checkout import CHECKOUT
from tests.support.federation_processes import ROOTSTOCK, digits_federation

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user"),
]

RAY_CALL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"

PROBE = f"""
import http.client, json, os, socket, subprocess, sys, urllib.error, urllib.request
import grpc
everyones, *ports = sys.argv[1:]

def over_http(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{{port}}/", timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):  # none, or one that is no HTTP/1.1
        return "nothing"

def over_grpc(port):
    with grpc.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        try:
            channel.unary_unary("{RAY_CALL}")(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

over_http("9"), over_grpc("9")  # whatever Python imports late, the other user may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
found = subprocess.run(["find", everyones], capture_output=True, text=True).stdout.split()
print(json.dumps({{
    "found": found,
    "http": {{port: over_http(port) for port in ports}},
    "grpc": {{port: over_grpc(port) for port in ports}},
}}))
"""


@pytest.fixture
def everyones() -> Iterator[Path]:
    """Give a folder that everyone can list; Ray's Unix sockets need short names."""
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def listening(parent: psutil.Process) -> dict[str, psutil.Process]:
    """Return who listens at which port of 127.0.0.1; no other address is listened at."""
    ports = {}
    for process in parent.children(recursive=True):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", process.name()
                ports[str(connection.laddr.port)] = process
    return ports


def test_another_user_reads_nothing_and_nothing_answers(everyones: Path) -> None:
    config = digits_federation(evaluation={"refine": False}).model_dump(exclude_none=True)
    (everyones / "federation.toml").write_text(tomli_w.dumps(config), "utf-8")
    net = everyones / "net"
    command = ["up", str(everyones / "federation.toml"), "--state", str(net), "--keep-ui"]
    with subprocess.Popen(
        [*ROOTSTOCK, *command],
        cwd=everyones,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "TMPDIR": str(everyones)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        try:
            deadline = time.monotonic() + 300
            while not list(net.glob("sites/*/ledger/*")):  # a lab has shipped: everything runs
                assert up.poll() is None, up.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            ports = listening(psutil.Process(up.pid))
            commands = {each.pid: each.cmdline() for each in ports.values()}
            probed = subprocess.run(
                [sys.executable, "-c", PROBE, str(everyones), *ports],
                cwd="/",
                capture_output=True,
                text=True,
            )
            assert probed.returncode == 0, probed.stderr
            # The very calls, by this user, who has Ray's token.
            (gcs,) = (port for port, each in ports.items() if each.name() == "gcs_server")
            token = ports[gcs].environ()["RAY_AUTH_TOKEN"]
            with grpc.insecure_channel(f"127.0.0.1:{gcs}") as channel:
                call: Any = channel.unary_unary(RAY_CALL)
                assert call(b"", timeout=20, metadata=(("authorization", f"Bearer {token}"),))
            assert (USER, bool(password_of(net / "mlflow"))) == ("rootstock", True)
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=120)
    seen = json.loads(probed.stdout)
    below = {each.removeprefix(str(everyones)).strip("/") for each in seen["found"]}
    assert {"", "federation.toml", "net"} <= below  # what the folder itself shows
    assert {each for each in below if each.startswith("net/")} == set()
    assert all("/" not in each for each in below), below
    (mlflow,) = (port for port, each in ports.items() if "uvicorn" in commands[each.pid])
    assert seen["http"][mlflow] == 401
    assert set(seen["http"].values()) <= {401, "nothing"}
    assert seen["grpc"][gcs] == "UNAUTHENTICATED"
    assert "OK" not in seen["grpc"].values()
