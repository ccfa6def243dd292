"""Runs of a small federation in which processes, lines, disks and clocks fail at drawn moments.

Each run is one seed: two labs, a coordinator, Ray and MLflow as real processes that a supervisor
starts again, a handful of faults (`fault_plan`), and at the end the promises (`fault_checks`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from rootstock.common.errors import RootstockError
from rootstock.common.failpoints import VARIABLE
from rootstock.deploy.federation.leftovers import marked
from rootstock.deploy.federation.processes import Processes, free_ports
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusResponse
from tests.benchmarks.system.fault_checks import acknowledged, broken
from tests.benchmarks.system.fault_plan import LABS, STEPS, Fault, schedule
from tests.support.federation_processes import QUICK, Running, digits_federation
from tests.support.line import Line
from tests.support.mlflow_server import MlflowServer

FAULTS_PER_RUN = 4
PATIENCE_SECONDS = 300.0
"""After the last fault everything is to be done within this."""
PAUSE_SECONDS = 0.5
"""A supervisor's pause before it starts a process again."""
DISK_BYTES = 256 << 20
WALL_CLOCK = Path(__file__).with_name("wall_clock.c")
_STEPS = {"distillation": {**QUICK, "steps": 600}, "jobs": {"checkpoint_steps": 50}}


def measure(first: int, seeds: int, console: Console) -> dict[str, Any]:
    """Return the table of faults: injected, recovered, what was lost, and the runs that broke."""
    undisturbed = one_run([], console)
    if undisturbed["broken"]:
        raise RootstockError(f"without a fault: {undisturbed['broken']}")
    window = undisturbed["seconds"]
    console.print(f"without a fault: {window:.0f} s")
    rows = []
    for seed in range(first, first + seeds):
        faults = schedule(seed, FAULTS_PER_RUN, without=_impossible())
        row = {"seed": seed, **one_run(faults, console, window)}
        rows.append(row)
        said = "; ".join(row["broken"]) or "well"
        console.print(f"seed {seed}: {', '.join(row['injected'])}: {said} ({row['seconds']:.0f} s)")
    injected = Counter(name for row in rows for name in row["injected"])
    unwell = Counter(name for row in rows if row["broken"] for name in row["injected"])
    return {
        "runs": len(rows),
        "undisturbed_seconds": round(window, 1),
        "acknowledged": sum(row["acknowledged"] for row in rows),
        "lost": sum(text.startswith("lost:") for row in rows for text in row["broken"]),
        "restarts": dict(sum((Counter(row["restarts"]) for row in rows), Counter())),
        "faults": [
            {"fault": name, "injected": count, "recovered": count - unwell[name]}
            for name, count in sorted(injected.items())
        ],
        "broken": [row for row in rows if row["broken"]],
    }


def one_run(faults: list[Fault], console: Console, window: float = 0.0) -> dict[str, Any]:
    """Run a federation to its end with these faults; `window` are the seconds they fall in."""
    # Short: Ray's sockets lie below it, and their paths have a limit of 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rf-"))
    with ExitStack() as stack:
        run = stack.enter_context(_federation(folder, faults))
        run.start(faults)
        run.carry_on(faults, window)
        row = run.end()
    if row["broken"]:
        console.print(f"  its folder is {folder}")
    else:
        shutil.rmtree(folder)
    return row


@contextmanager
def _federation(folder: Path, faults: list[Fault]) -> Iterator[_Run]:
    state, temporary = folder / "s", folder / "t"
    for each in (state, temporary):
        each.mkdir()
    full = {fault.what for fault in faults if fault.kind == "disk"}
    with ExitStack() as stack:
        for name in full:
            stack.enter_context(_small_disk(state / name))
        with Processes(state / "logs", state) as processes:
            run = _Run(folder, temporary, processes)
            stack.callback(run.line.close)
            yield run


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    options = f"size={DISK_BYTES},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class _Run:
    def __init__(self, folder: Path, temporary: Path, processes: Processes) -> None:
        (port,) = free_ports(1)
        self._folder, self._temporary, self._processes = folder, temporary, processes
        self._mlflow = MlflowServer(processes, folder / "mlflow", port)
        config = digits_federation(
            **_STEPS, history={"retry_seconds": 1.0}, server={"heartbeat_seconds": 1.0}
        )
        network = {"idle_seconds": 4.0, "call_seconds": 4.0}  # less than a held line lasts
        config = config.model_copy(update={"site": {**config.site, "network": network}})
        self.running = Running(config, folder / "s", self._mlflow.uri, processes)
        self.line = Line(self.running.port)
        self._points = folder / "points"
        self._points.mkdir()
        self._clocks = {name: folder / f"clock-{name}" for name in ("coordinator", "lab-one")}
        self._moves_clock = folder / "wall_clock.so"
        self._restarts: Counter[str] = Counter()
        self._injected: list[str] = []
        self._until: list[tuple[float, Fault]] = []
        self._down: dict[str, float] = {}
        self._answer: GetStatusResponse | None = None
        self._problems: list[str] = []
        self._started = time.monotonic()

    def start(self, faults: list[Fault]) -> None:
        if any(fault.kind == "clock" for fault in faults):
            words = ["cc", "-shared", "-fPIC", "-O2", "-o", str(self._moves_clock), str(WALL_CLOCK)]
            subprocess.run(words, check=True)
        self._environment = {VARIABLE: str(self._points), "TMPDIR": str(self._temporary)}
        self._mlflow.wait()
        self._started = time.monotonic()
        self.running.start_coordinator(self._variables("coordinator"))
        for name in LABS:
            environment = self._variables(name)
            self.running.start_site(name, address=self.line.address, env=environment)

    def _variables(self, name: str) -> dict[str, str]:
        clock = self._clocks.get(name)
        if not self._moves_clock.exists() or clock is None:
            return self._environment
        _set_clock(clock, 0)
        variables = {"LD_PRELOAD": str(self._moves_clock), "ROOTSTOCK_TEST_CLOCK": str(clock)}
        return self._environment | variables

    def carry_on(self, faults: list[Fault], window: float) -> None:
        """Inject each fault at its time, start again what ends, and wait until all is done."""
        due = [(self._started + fault.at * window, fault) for fault in faults]
        deadline = self._started + window + PATIENCE_SECONDS
        while True:
            now = time.monotonic()
            self._look_after(now)
            while due and due[0][0] <= now:
                self._inject(due.pop(0)[1], now)
            for end, fault in [each for each in self._until if each[0] <= now]:
                self._mend(fault)
                self._until.remove((end, fault))
            if not due and not self._until and self._is_done():
                break
            if now > deadline:
                self._problems.append(
                    f"not done after {now - self._started:.0f} s: {self._words()}"
                )
                break
            time.sleep(0.1)
        for _, fault in self._until:
            self._mend(fault)
        self._injected += [
            f"point {path.name.removesuffix('.fired')}: {path.read_text().strip()}"
            for path in sorted(self._points.glob("*.fired"))
        ]

    def end(self) -> dict[str, Any]:
        """Stop everything, and say what was promised and does not hold."""
        seconds = time.monotonic() - self._started
        if not self._problems:
            for words in (("net", "verify"), ("coordinator", "history", "rebuild")):
                with suppress_into(self._problems, " ".join(words)):
                    said = self.running.run(*words)
                    if words[0] == "coordinator" and "0 made" not in said:
                        self._problems.append(f"history rebuild: {said}")
        state = self.running.state
        started = {each.pid for each in marked(state)}
        self._processes.stop()
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and (left := self._left(started)):
            time.sleep(0.2)
        self._problems += [f"process left over: {name}" for name in left]
        receipts = acknowledged(self.running)
        self._problems += broken(self.running, self._temporary)
        return {
            "seconds": round(seconds, 1),
            "injected": sorted(self._injected),
            "restarts": dict(self._restarts),
            "acknowledged": len(receipts),
            "broken": self._problems,
        }

    def _left(self, started: set[int]) -> list[str]:
        guard = "deploy.federation.leftovers"
        return [
            each.command
            for each in marked(self.running.state)
            if each.pid in started and guard not in each.command
        ]

    def _look_after(self, now: float) -> None:
        for name in ("mlflow", "coordinator", *LABS):
            code = self._processes.code(name)
            if code is None:
                continue
            if name not in self._down:
                self._down[name] = now
                self._restarts[f"{name} {code}"] += 1
            elif now - self._down[name] > PAUSE_SECONDS:
                del self._down[name]
                self._processes.restart(name)

    def _is_done(self) -> bool:
        if self._down:
            return False
        with suppress(RootstockError):
            self._answer = answer = self.running.status()
            states = [] if answer is None else [m.state for m in answer.merges if m.logged]
            ended = ("merged", "rejected", "failed")
            return len(states) == len(LABS) and all(state in ended for state in states)
        return False

    def _words(self) -> str:
        if self._answer is None:
            return "the coordinator does not answer"
        merges = [f"{m.category} {m.state} {m.reason}" for m in self._answer.merges]
        return f"{len(self._answer.submissions)} submissions; {'; '.join(merges)}"

    def _inject(self, fault: Fault, now: float) -> None:
        line, what = self.line, fault.what
        match fault.kind:
            case "point":
                name, _, action = what.partition(": ")
                (self._points / name).write_text(action)
                return  # counted when it has fired
            case "kill":
                if not self._kill(what):
                    return
            case "line":
                if what == "delay":
                    line.delay_seconds = 0.2
                elif what == "slow":
                    line.bytes_per_second = 20e3
                else:
                    {"cut": line.cut, "hold": line.hold, "corrupt": line.corrupt}[what]()
            case "store":
                store = self.running.coordinator.state / "artifacts"
                if not store.exists():
                    return
                store.rename(self._away)
            case "disk":
                _fill(self._ballast(what))
            case "clock":
                name, _, how = what.partition(" ")
                _set_clock(self._clocks[name], STEPS[how])
        self._injected.append(str(fault))
        self._until.append((now + fault.lasts, fault))

    def _mend(self, fault: Fault) -> None:
        match fault.kind:
            case "line":
                self.line.delay_seconds, self.line.bytes_per_second = 0.0, None
                self.line.resume()
            case "store":
                self._away.rename(self.running.coordinator.state / "artifacts")
            case "disk":
                self._ballast(fault.what).unlink(missing_ok=True)

    @property
    def _away(self) -> Path:
        """Where the store is while it is away: on its own disk, which may be a small one."""
        return self.running.coordinator.state / "artifacts-away"

    def _ballast(self, name: str) -> Path:
        return self.running.state / name / "ballast"

    def _kill(self, what: str) -> bool:
        if what in ("coordinator", "mlflow", *LABS):
            if what in self._down:
                return False
            os.kill(self._processes.pid(what), signal.SIGKILL)
            return True
        with suppress(psutil.Error):
            coordinator = psutil.Process(self._processes.pid("coordinator"))
            for each in coordinator.children(recursive=True):
                if each.name() == what or (what == "ray worker" and "ray::" in each.name()):
                    each.kill()
                    return True
        return False


@contextmanager
def suppress_into(problems: list[str], what: str) -> Iterator[None]:
    """Keep what a check raises as a problem."""
    try:
        yield
    except (AssertionError, subprocess.TimeoutExpired) as error:
        problems.append(f"{what}: {error}")


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def _set_clock(clock: Path, seconds: int) -> None:
    """Move the wall clock of those that look at this file, in place: they have it mapped."""
    clock.touch()
    with clock.open("r+b") as file:
        file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def _impossible() -> frozenset[str]:
    kinds = set()
    if os.geteuid() != 0:
        kinds.add("disk")
    if shutil.which("cc") is None:
        kinds.add("clock")
    return frozenset(kinds)
