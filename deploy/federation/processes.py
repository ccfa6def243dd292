"""Real processes of one federation: started with a log each, stopped together, never orphaned."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rootstock.common import signals
from rootstock.common.environment import isolated
from rootstock.common.errors import RootstockError, UnreachableError
from rootstock.common.files import make_folder, storage_errors
from rootstock.deploy.federation.leftovers import STOP_SECONDS, mark

_GUARD = "rootstock.deploy.federation.leftovers"

_interrupted = threading.Event()


def interrupt_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end this process and everything that it started.

    Python drops what a handler raises within a
    destructor, for example of a channel; then `Processes.check` raises it.
    """

    def interrupt(*_: object) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    for number in signals.ending():
        signal.signal(number, interrupt)


class ProcessEndedError(RootstockError):
    """A process of the federation ended before its work was done; its exit code is that one's."""

    def __init__(self, name: str, code: int, log: Path, begin: int = 0) -> None:
        self.name = name
        self.code = code
        self.exit_code = code if code > 0 else RootstockError.exit_code
        words = _last_words(log, begin)
        self.reason = f"{name} {_ended(code)}: {words.splitlines()[-1] if words else 'no word'}"
        super().__init__(f"{name} {_ended(code)}; its log is {log}\n{words}")


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}" + (
        " (is there enough memory?)" if -code == signal.SIGKILL else ""
    )


def _last_words(log: Path, begin: int) -> str:
    """Return the error that a process ended with, or else the last lines of its log.

    Its own lines begin at byte `begin`.
    """
    with storage_errors(log):
        lines = log.read_bytes()[begin:].decode("utf-8", errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[errors[-1] :] if errors else lines[-12:])


class Processes:
    """A set of child processes; as a context manager it stops all of them on the way out.

    With `state`, the federation's folder, a guard stops them also when this process is killed.
    """

    def __init__(self, logs: Path, state: Path | None = None) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[Sequence[str], dict[str, str], Path]] = {}
        self._begins: dict[str, int] = {}
        self._environment = isolated(os.environ, credentials=False)
        self._guard: subprocess.Popen[bytes] | None = None
        make_folder(logs)
        if state is not None:
            run = secrets.token_hex(8)
            self._environment |= mark(run, state)
            self._guard = self._start_guard(state, run)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._guard is not None:
            # The end of its input sends it round once more: for what has left its parent's group.
            self._guard.communicate()

    def log_of(self, name: str) -> Path:
        """Return the file that takes a process's output."""
        return self._logs / f"{name}.log"

    def start(
        self,
        name: str,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start a process in a group of its own, so that Ctrl-C reaches only us and we stop it.

        Its current folder is that of the logs, or `folder`: none in which a user keeps files.
        """
        self._commands[name] = (argv, env or {}, folder or self._logs)
        self.restart(name)

    def restart(self, name: str) -> None:
        """Start a process that has ended again, as it was started before."""
        argv, env, folder = self._commands[name]
        if name in self._running:  # workers that outlived it have its port
            with suppress(ProcessLookupError):
                os.killpg(self._running[name].pid, signal.SIGKILL)
            self._running[name].wait()
        log_path = self.log_of(name)
        with storage_errors(log_path), log_path.open("ab") as log:
            self._begins[name] = log.tell()
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own command lines
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **env},
                cwd=folder,
                start_new_session=True,
            )

    def _start_guard(self, state: Path, run: str) -> subprocess.Popen[bytes]:
        environment = isolated(os.environ, credentials=False)
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-m", _GUARD, str(state), run],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=self._logs,
            start_new_session=True,
        )

    def pid(self, name: str) -> int:
        """Return the number of a process."""
        return self._running[name].pid

    def code(self, name: str) -> int | None:
        """Return the exit code of a process that has ended; None: it runs."""
        return self._running[name].poll()

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
                raise ProcessEndedError(name, code, self.log_of(name), self._begins[name])

    def wait(self) -> None:
        """Wait until this process is interrupted; see `check`."""
        while True:
            self.check()
            time.sleep(0.5)

    def stop(self, names: Sequence[str] | None = None) -> None:
        """Stop processes, those started last first: SIGTERM, a grace, SIGKILL to what is left.

        A second Ctrl-C in the meantime is blocked: it would leave processes behind.
        """
        impatience = set(signals.ENDING)
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


def is_taken(port: int) -> bool:
    """Say whether another process listens on a port of 127.0.0.1."""
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_ports(count: int) -> list[int]:
    """Return ports on 127.0.0.1 that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        try:
            for each in sockets:
                each.bind(("127.0.0.1", 0))
        except OSError as error:
            raise UnreachableError(
                f"127.0.0.1: {error.strerror}; give this machine a loopback interface that has "
                "this address (ip address show lo)"
            ) from error
        return [each.getsockname()[1] for each in sockets]
