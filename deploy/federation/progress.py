"""Shows how far each lab of a federation is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rootstock.deploy.federation.config import Federation
from rootstock.deploy.output import StageLines
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb

ENDED = frozenset({"merged", "rejected", "failed", "rolled_back"})
"""States in which a merge goes on no further."""


class Stage(NamedTuple):
    """The present work of a lab, and how far it is."""

    text: str
    step: int = 0
    steps: int = 1
    waits_for: str = ""
    """Why it goes on no further, in a sentence or two."""


class Display:
    """Prints the stage of each lab, from its agent's status file and the coordinator's answer.

    A line at each new stage, and every tenth of a long one.
    """

    def __init__(self, federation: Federation, console: Console) -> None:
        self._console = console
        self._lines = StageLines(
            # Reasons are others' words: no markup.
            lambda site, text: console.print(f"{site}: {text}", soft_wrap=True, markup=False)
        )
        self._status = {site.site: site.state / "status.json" for site in federation.sites}

    def show(self, answer: pb.GetStatusResponse | None) -> None:
        """Show the present state; None while the coordinator does not answer yet."""
        for site, stage in self._stages(answer).items():
            self._show(site, stage)

    def close(self) -> None:
        """Show nothing more."""

    def _show(self, site: str, stage: Stage) -> None:
        why = f": {stage.waits_for}" if stage.waits_for else ""
        self._lines.tell(site, stage.text + why, stage.step, stage.steps)

    def _stages(self, answer: pb.GetStatusResponse | None) -> dict[str, Stage]:
        stages = {site: _agent_stage(path) for site, path in self._status.items()}
        if answer is None:
            return stages
        for submission in answer.submissions:
            site = submission.site
            if submission.state == "refused":
                stages[site] = Stage(f"refused: {submission.reason}", 1)
            elif submission.state == "receiving":
                stages[site] = Stage(
                    "ships the teacher net", submission.bytes_received, submission.bytes_total
                )
        owners = {each.submission_id: each.site for each in answer.submissions}
        for site in self._status:
            merges = [each for each in answer.merges if owners.get(each.submission_id) == site]
            stages[site] = _merge_stage(merges, answer.history.error) or stages[site]
        return stages


class BarDisplay(Display):
    """Shows a bar for each lab instead."""

    def __init__(self, federation: Federation, console: Console) -> None:
        super().__init__(federation, console)
        self._said = ""
        self._progress = Progress(
            TextColumn("{task.fields[site]:<12}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks = {
            site: self._progress.add_task("starts", total=1, site=site) for site in self._status
        }
        self._progress.start()

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def _show(self, site: str, stage: Stage) -> None:
        if stage.waits_for not in ("", self._said):  # a bar has no room for it
            self._said = stage.waits_for
            self._console.print(
                f"Waits for MLflow: {stage.waits_for}", soft_wrap=True, markup=False
            )
        self._progress.update(
            self._tasks[site],
            description=stage.text,
            completed=stage.step,
            total=max(stage.steps, 1),
        )


def _agent_stage(path: Path) -> Stage:
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Stage("starts")
    text = str(status.get("message") or status.get("phase"))
    return Stage(text, int(status.get("step") or 0), int(status.get("steps") or 1))


def _merge_stage(merges: Sequence[pb.MergeStatus], trouble: str) -> Stage | None:
    """Return the stage of a lab's merges, one for each task; None if its own status says more.

    `trouble` is why MLflow does not take merges: it is shown once a lab waits for nothing else.
    """
    several = len(merges) > 1
    for merge in merges:
        if merge.state == "distilling":
            of = f" of {merge.task}" if several else ""
            return Stage(f"back-distillation{of}", merge.step, merge.steps)
    if not merges or any(merge.state == "evaluating" for merge in merges):
        return None
    text = "; ".join((f"{each.task} " if several else "") + _ended(each) for each in merges)
    waits = not all(each.logged for each in merges)
    if trouble and waits and all(each.state in ENDED for each in merges):
        return Stage(f"{text}; waits for MLflow", waits_for=trouble)
    return Stage(text, int(all(merge.state != "queued" for merge in merges)))


def _ended(merge: pb.MergeStatus) -> str:
    if merge.state == "merged":
        return f"merged into v{merge.net_version}"
    return merge.state + (f": {merge.reason}" if merge.reason else "")
