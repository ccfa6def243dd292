from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from rootstock.deploy.federation.config import Federation, resolve
from rootstock.deploy.federation.progress import BarDisplay, Display
from rootstock.protos.rootstock.operator.v1 import operator_pb2
from tests.support.federation_processes import digits_federation


def shown(
    tmp_path: Path,
    *merges: tuple[str, str],
    logged: bool = True,
    trouble: str = "",
    display: type[Display] = Display,
) -> list[str]:
    """Return what is printed of one lab's merges, each a task and its state."""
    federation: Federation = resolve(
        digits_federation(),
        source="test",
        state=tmp_path,
        coordinator_port=1,
        mlflow_uri="http://x",
    )
    text = io.StringIO()
    shows = display(federation, Console(file=text, width=80))
    shows.show(
        operator_pb2.GetStatusResponse(
            submissions=[operator_pb2.SubmissionStatus(submission_id="s", site="lab-one")],
            merges=[
                operator_pb2.MergeStatus(
                    submission_id="s",
                    task=task,
                    state=state,
                    step=3,
                    steps=10,
                    net_version=4,
                    logged=logged,
                )
                for task, state in merges
            ],
            history=operator_pb2.HistoryStatus(error=trouble),
        )
    )
    shows.close()
    starts = ("lab-one", "Waits")
    return [line for line in text.getvalue().splitlines() if line.startswith(starts)]


def test_one_task_needs_no_name(tmp_path: Path) -> None:
    assert shown(tmp_path, ("a", "distilling")) == ["lab-one: back-distillation 30%"]
    assert shown(tmp_path, ("a", "merged")) == ["lab-one: merged into v4"]


def test_two_tasks_of_a_lab_are_told_apart(tmp_path: Path) -> None:
    both = shown(tmp_path, ("a", "merged"), ("b", "distilling"))
    assert both == ["lab-one: back-distillation of b 30%"]
    both = shown(tmp_path, ("a", "merged"), ("b", "rejected"))
    assert both == ["lab-one: a merged into v4; b rejected"]
    # While the lab evaluates, its own status says more.
    assert shown(tmp_path, ("a", "merged"), ("b", "evaluating")) == ["lab-one: starts"]


def test_a_lab_that_waits_for_nothing_but_mlflow_says_so(tmp_path: Path) -> None:
    trouble = "[/var/x] No space left on device; free space on that disk, or move the folder away"
    merged, waits = "lab-one: merged into v4", f"; waits for MLflow: {trouble}"
    assert shown(tmp_path, ("a", "merged"), logged=False, trouble=trouble) == [merged + waits]
    rejected = shown(tmp_path, ("a", "rejected"), logged=False, trouble=trouble)
    assert rejected == [f"lab-one: rejected{waits}"]
    assert shown(tmp_path, ("a", "merged"), logged=True, trouble=trouble) == [merged]
    assert shown(tmp_path, ("a", "merged"), logged=False) == [merged]
    # It waits for more than that.
    learning = shown(tmp_path, ("a", "merged"), ("b", "distilling"), logged=False, trouble=trouble)
    assert learning == ["lab-one: back-distillation of b 30%"]


def test_a_bar_that_waits_for_mlflow_has_the_reason_above(tmp_path: Path) -> None:
    trouble = "[/var/x] No space left on device; free space on that disk, or move the folder away"
    said, bar = shown(tmp_path, ("a", "merged"), logged=False, trouble=trouble, display=BarDisplay)
    assert said == f"Waits for MLflow: {trouble}"
    assert "merged into v4; waits for MLflow" in bar
