"""A coordinator's server as a process, to be killed: STATE [LARGEST FILE IN BYTES]."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.coordinator_server import Running
from tests.support.identities import STATES


@contextmanager
def serving(state: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.coordinator_process", str(state), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("127.0.0.1:"):
                STATES[line.strip()] = state
                yield process, line.strip()
                break
        else:
            pytest.fail("the server did not start")
    finally:
        # Its log is read to the end: a server whose log breaks does not get as far as its end.
        process.communicate(timeout=30)


if __name__ == "__main__":
    running = Running(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        # The system refuses to let a file grow further: what a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    print(running.address, flush=True)
    sys.stdin.read()
    running.stop()
