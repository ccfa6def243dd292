"""Real processes of one federation: started with a log each, stopped together, never orphaned."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rootstock.common.errors import RootstockError

STOP_SECONDS = 15.0
"""Grace between SIGTERM and SIGKILL: an agent ends its chunk, the coordinator its transaction."""


_interrupted = threading.Event()


def interrupt_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process and everything that it started.

    Python drops what a handler raises within a destructor, for example of a channel; then
    `Processes.check` raises it.
    """

    def interrupt(*_: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


class ProcessEndedError(RootstockError):
    """A process of the federation ended before its work was done."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        super().__init__(
            f"{name} ended with exit code {code}; its log {log} closes with:\n" + "\n".join(tail)
        )


class Processes:
    """A set of child processes; as a context manager it stops all of them on the way out."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log_of(self, name: str) -> Path:
        """Return the file that takes a process's output."""
        return self._logs / f"{name}.log"

    def start(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
        """Start a process in a group of its own, so that Ctrl-C reaches only us and we stop it."""
        with self.log_of(name).open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own command lines
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def take(self, name: str) -> subprocess.Popen[bytes]:
        """Give a process away; whoever takes it ends it."""
        return self._running.pop(name)

    def check(self) -> None:
        """Raise `ProcessEndedError` if one has ended, KeyboardInterrupt if this is to end."""
        if _interrupted.is_set():
            raise KeyboardInterrupt
        for name, process in self._running.items():
            code = process.poll()
            if code is not None:
                raise ProcessEndedError(name, code, self.log_of(name))

    def wait(self) -> None:
        """Wait until this process is interrupted; see `check`."""
        while True:
            self.check()
            time.sleep(0.5)

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop processes, those started last first: SIGTERM, a grace, SIGKILL to what is left.

        A second Ctrl-C in the meantime is blocked: it would leave processes behind.
        """
        impatience = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, impatience)
        try:
            self._stop(names)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, impatience)

    def _stop(self, names: Sequence[str] | None) -> None:
        chosen = [name for name in reversed(self._running) if names is None or name in names]
        for name in chosen:
            # To the process alone: it ends what it has started (Ray's) in the right order.
            self._running[name].terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for name in chosen:
            process = self._running.pop(name)
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # What the process itself has started (MLflow's workers) is in its group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports on 127.0.0.1 that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
