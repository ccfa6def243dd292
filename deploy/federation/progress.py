"""How far every process of a federation is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rootstock.deploy.federation.config import Federation
from rootstock.protos.rootstock.operator.v1 import operator_pb2


class Display(Protocol):
    """Shows a federation's progress."""

    def show(self, answer: operator_pb2.GetStatusResponse | None) -> None:
        """Show the present state; None while the coordinator does not answer yet."""

    def close(self) -> None:
        """Show nothing more."""


def make_display(federation: Federation, console: Console) -> Display:
    """Return bars for a terminal and lines for anything else."""
    if console.is_terminal:
        return BarDisplay(federation, console)
    return LineDisplay(federation, console)


class _Stages:
    """What each lab is at, from its agent's status file and the coordinator's answer."""

    def __init__(self, federation: Federation) -> None:
        self._sites = {site.site: site.category for site in federation.sites}
        self._status = {site.site: site.state / "status.json" for site in federation.sites}

    def __call__(
        self, answer: operator_pb2.GetStatusResponse | None
    ) -> dict[str, tuple[str, int, int]]:
        """Return, for each site, (what it is at, step, steps)."""
        stages = {site: self._agent(site) for site in self._sites}
        if answer is None:
            return stages
        owners = {s.submission_id: s.site for s in answer.submissions}
        for submission in answer.submissions:
            if submission.state == "refused":
                stages[submission.site] = (f"refused: {submission.reason}", 1, 1)
            elif submission.state == "receiving":
                stages[submission.site] = (
                    "ships the teacher net",
                    submission.bytes_received,
                    submission.bytes_total,
                )
        for site in self._sites:
            merges = [m for m in answer.merges if owners.get(m.submission_id) == site]
            stage = _merging(merges)
            if stage is not None:
                stages[site] = stage
        return stages

    def _agent(self, site: str) -> tuple[str, int, int]:
        try:
            status = json.loads(self._status[site].read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ("starts", 0, 1)
        step, steps = status.get("step") or 0, status.get("steps") or 1
        return (str(status.get("message") or status.get("phase")), int(step), int(steps))


def _merging(merges: Sequence[operator_pb2.MergeStatus]) -> tuple[str, int, int] | None:
    """Return what a lab's merges are at, one for each task; None where its own status says more."""
    several = len(merges) > 1
    for merge in merges:
        if merge.state == "distilling":
            of = f" of {merge.task}" if several else ""
            return f"back-distillation{of}", merge.step, merge.steps
    if not merges or any(merge.state == "evaluating" for merge in merges):
        return None
    return (
        "; ".join(_ended(merge, several=several) for merge in merges),
        int(all(merge.state != "queued" for merge in merges)),
        1,
    )


def _ended(merge: operator_pb2.MergeStatus, *, several: bool) -> str:
    what = f"{merge.task} " if several else ""
    if merge.state == "merged":
        return f"{what}merged into v{merge.net_version}"
    return f"{what}{merge.state}" + (f": {merge.reason}" if merge.reason else "")


class BarDisplay:
    """A bar a lab."""

    def __init__(self, federation: Federation, console: Console) -> None:
        self._stages = _Stages(federation)
        self._progress = Progress(
            TextColumn("{task.fields[site]:<12}"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {
            site.site: self._progress.add_task("starts", total=1, site=site.site)
            for site in federation.sites
        }
        self._progress.start()

    def show(self, answer: operator_pb2.GetStatusResponse | None) -> None:
        """Move the bars."""
        for site, (text, step, steps) in self._stages(answer).items():
            self._progress.update(
                self._tasks[site], description=text, completed=step, total=max(steps, 1)
            )

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._progress.stop()


class LineDisplay:
    """A line whenever a lab comes to something new, and every tenth of a long step."""

    def __init__(self, federation: Federation, console: Console) -> None:
        self._stages = _Stages(federation)
        self._console = console
        self._last: dict[str, tuple[str, int]] = {}

    def show(self, answer: operator_pb2.GetStatusResponse | None) -> None:
        """Print what has changed."""
        for site, (text, step, steps) in self._stages(answer).items():
            tenth = 10 * step // max(steps, 1)
            # What follows a colon (a loss) changes all the time.
            stage = text.partition(":")[0]
            if self._last.get(site) != (stage, tenth):
                self._last[site] = (stage, tenth)
                share = f" {10 * tenth}%" if steps > 1 else ""
                self._console.print(f"{site}: {text}{share}", soft_wrap=True)

    def close(self) -> None:
        """Nothing is held open."""
