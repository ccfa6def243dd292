"""A coordinator under load: many labs that watch, calls between them, large uploads beside.

Every lab is a member with a certificate and a connection of its own, over loopback; light ones
share a process. What one lab feels is measured as another's load grows: the time of a small call,
and how long an event takes to reach everybody.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from rootstock.common.errors import UnreachableError
from tests.benchmarks.harness.processes import command, environment

SIZES = (1, 10, 100, 1000)
UPLOADS = (6, 20)
WATCHING = 10
"""Labs that watch and call while others upload."""


class Role:
    """A process of the measurement: answers one line of JSON for each line that it is told."""

    def __init__(self, name: str, *words: str) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command("tests.benchmarks.system.load_roles", name, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def hear(self) -> Any:
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise UnreachableError(f"the role '{self._name}' ended before it answered")
        return json.loads(line)

    def tell(self, words: str) -> None:
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def ask(self, words: str) -> Any:
        self.tell(words)
        return self.hear()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def role(name: str, *words: object) -> Iterator[Role]:
    running = Role(name, *map(str, words))
    try:
        yield running
    finally:
        running.stop()


def measure(
    sizes: tuple[int, ...],
    uploads: tuple[int, ...],
    payload_bytes: int,
    console: Console,
    slow: int = 0,
    hold_seconds: int = 0,
) -> dict[str, Any]:
    """Return a row for each number of labs, idle and with uploads, and the ratios to the first.

    With `slow`, two more: an upload alone, and beside so many labs that hold streams with a byte
    now and then. With `hold_seconds`, the memory with the most labs after a tenth and after all of
    that time.
    """
    rows = []
    more: dict[str, Any] = {}
    members = max(*sizes, *uploads, WATCHING, slow) + 2
    with tempfile.TemporaryDirectory(prefix="rootstock-load-") as name:
        folder = Path(name)
        with role("prepare", folder, payload_bytes, members) as prepare:
            prepared = prepare.hear()
        for labs in sizes:
            console.print(f"{labs} labs")
            rows.append({"labs": labs, "uploads": 0, **_watched(folder, labs)})
        for count in uploads:
            console.print(f"{count} uploads of {prepared['payload_bytes'] >> 20} MiB at once")
            rows.append({"labs": WATCHING, "uploads": count, **_uploading(folder, count)})
        if slow:
            console.print(f"an upload beside {slow} slow labs")
            more["slow"] = [
                _beside_slow(folder, count, members - 1 - (count > 0)) for count in (0, slow)
            ]
        if hold_seconds:
            console.print(f"{max(sizes)} labs for {hold_seconds} s")
            more["held"] = _held(folder, max(sizes), hold_seconds)
    idle = rows[0]["call_p99_ms"]
    for row in rows:
        row["call_p99_ratio"] = round(row["call_p99_ms"] / idle, 1)
    return {"payload_bytes": prepared["payload_bytes"], "rows": rows, **more}


def _watched(folder: Path, labs: int) -> dict[str, Any]:
    with ExitStack() as stack:
        server = stack.enter_context(role("serve", folder))
        address = server.hear()
        server.ask("begin")
        agents = stack.enter_context(role("labs", folder, address, labs))
        agents.hear()
        return {**agents.ask("calls"), "event_ms": _event(server, agents), **server.ask("memory")}


def _uploading(folder: Path, uploads: int) -> dict[str, Any]:
    with ExitStack() as stack:
        server = stack.enter_context(role("serve", folder))
        address = server.hear()
        agents = stack.enter_context(role("labs", folder, address, WATCHING))
        agents.hear()
        server.ask("begin")
        uploader = stack.enter_context(role("upload", folder, address, uploads))
        uploader.hear()  # they begin
        row = {**agents.ask("calls"), "event_ms": _event(server, agents)}
        return {**row, **uploader.hear(), **server.ask("memory")}


def _beside_slow(folder: Path, slow: int, honest: int) -> dict[str, Any]:
    with ExitStack() as stack:
        server = stack.enter_context(role("serve", folder))
        address = server.hear()
        streams = 0
        if slow:
            streams = stack.enter_context(role("slow", folder, address, slow, 0)).hear()["slow"]
        uploader = stack.enter_context(role("upload", folder, address, 1, honest))
        uploader.hear()
        return {"slow_labs": slow, "slow_streams": streams, **uploader.hear()}


def _held(folder: Path, labs: int, seconds: int) -> dict[str, Any]:
    """Return the server's memory early and late, with calls and events all the while."""
    with ExitStack() as stack:
        server = stack.enter_context(role("serve", folder))
        agents = stack.enter_context(role("labs", folder, server.hear(), labs))
        agents.hear()
        begun = time.monotonic()
        found: dict[str, Any] = {"labs": labs}
        for at in (seconds // 10, seconds):
            while time.monotonic() < begun + at:
                agents.ask("calls")
                _event(server, agents)
            found[f"resident_mib_after_{at}_s"] = server.ask("resident")["resident_mib"]
        return found


def _event(server: Role, agents: Role) -> float:
    """Return the milliseconds from an event's transaction to the last lab that hears of it."""
    agents.ask("event")
    begun: float = server.ask("event")["begun"]
    last: float = agents.hear()["last"]
    return round(1000 * (last - begun), 1)
