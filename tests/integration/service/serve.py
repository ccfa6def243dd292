"""A coordinator's server as a process, to be killed: STATE [LARGEST FILE IN BYTES]."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from tests.integration.service.running import Running

if __name__ == "__main__":
    running = Running(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        # The system refuses to let a file grow further: what a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    print(running.address, flush=True)
    sys.stdin.read()
    running.stop()
