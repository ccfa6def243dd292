"""The wire against a bare gRPC stream: the same bytes, real processes, one run.

The module is a real teacher net's (small-vgg at 96 pixels, wide enough to be as large as asked).
Both sides are processes of their own: the coordinator's server with its database and its store,
the site's client shipping from its spool. The bare stream sends the same file in chunks of the
same size to a servicer that drops them: no checksum, no digest, no disk at the far end.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from rootstock.common.errors import UnreachableError
from tests.benchmarks.harness.processes import command, environment

ROUNDS = 3
"""Each copy is measured so often, the two in turn; the medians are compared."""


def measure(payload_bytes: int, console: Console) -> dict[str, Any]:
    """Return the row of `bench transport` (DESIGN section 8), the module's true size in it."""
    with tempfile.TemporaryDirectory(prefix="rootstock-bench-") as name:
        folder = Path(name)
        console.print(f"writes a module of about {payload_bytes >> 20} MiB")
        prepared = _role("prepare", folder, str(payload_bytes))
        wire: list[dict[str, Any]] = []
        bare: list[dict[str, Any]] = []
        for round_ in range(ROUNDS):
            console.print(f"round {round_ + 1} of {ROUNDS}: the wire, then the bare stream")
            wire.append(_pair(folder, "serve", "ship"))
            bare.append(_pair(folder, "serve-bare", "send-bare"))
    payload = int(prepared["payload_bytes"])
    rates = [payload / row["seconds"] for row in wire]
    bare_rates = [payload / row["seconds"] for row in bare]
    return {
        "payload_bytes": payload,
        "bytes_per_second": round(median(rates)),
        "bare_grpc_bytes_per_second": round(median(bare_rates)),
        "ratio": round(median(rates) / median(bare_rates), 3),
        "rss_growth_bytes_client": max(row["rss_growth"] for row in wire),
        "rss_growth_bytes_server": max(row["server_rss_growth"] for row in wire),
        "rounds": ROUNDS,
    }


def _argv(role: str, folder: Path, *arguments: str) -> list[str]:
    return command("tests.benchmarks.system.transport_roles", role, str(folder), *arguments)


def _role(role: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run one role to its end; its answer is the last line that it prints."""
    argv = _argv(role, folder, *arguments)
    done = subprocess.run(argv, stdout=subprocess.PIPE, env=environment(), check=False)
    if done.returncode != 0:
        raise UnreachableError(f"the benchmark's role '{role}' ended with code {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _pair(folder: Path, server_role: str, client_role: str) -> dict[str, Any]:
    """Start a server, run a client against it, and stop the server, which then tells its peak."""
    pipe = subprocess.PIPE
    argv = _argv(server_role, folder)
    server = subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=environment())
    try:
        assert server.stdout is not None, "stdout is a pipe"
        address = server.stdout.readline().decode().strip()
        if not address:
            raise UnreachableError(f"the benchmark's role '{server_role}' did not start")
        row = _role(client_role, folder, address)
        answer, _ = server.communicate(timeout=60)  # closing its input ends it
        row["server_rss_growth"] = json.loads(answer.splitlines()[-1])["rss_growth"]
        return row
    finally:
        server.kill()
        server.wait()
