"""What tailoring has to show, measured on the rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.papers.nettailor.rows import Row, average, names

SIMPLE = ("mnist", "digits")
"""The paper's simplest task were digits as well, SVHN's; the first that was measured counts."""
GONE = 60.0
"""Percent of the parameters that go on it."""
TOLERANCE = 0.5
"""Points that a tailored net's error may be above its teacher's (paper, section 4.1)."""
NEW = 10.0
"""Percent of the original's parameters that a task may bring."""


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the goals that the rows say something about."""
    tasks = sorted(names(rows), key=lambda task: average(rows, task, "teacher_error").mean)
    found = [_gone(rows, task) for task in SIMPLE if task in tasks][:1]
    found += [_near(rows, task) for task in tasks]
    found.append(_new(rows, tasks))
    if len(tasks) > 1:
        found += [_smaller(rows, tasks), _faster(rows, tasks)]
    return found


def _gone(rows: Sequence[Row], task: str) -> Goal:
    gone = average(rows, task, "params_removed").mean
    return Goal(
        f"parameters removed on {task}",
        "73.4% (SVHN)",
        f"≥ {GONE:.0f}%",
        f"{gone:.1f}%",
        gone >= GONE,
    )


def _near(rows: Sequence[Row], task: str) -> Goal:
    above = average(rows, task, "error").mean - average(rows, task, "teacher_error").mean
    return Goal(
        f"{task}: error above fine-tuning's",
        "within 0.5 points",
        f"≤ {TOLERANCE} points",
        f"{above:+.1f} points",
        above <= TOLERANCE,
    )


def _new(rows: Sequence[Row], tasks: Sequence[str]) -> Goal:
    most = max(average(rows, task, "new_params_share").mean for task in tasks)
    return Goal(
        "new parameters a task, the most", "about 8%", f"< {NEW:.0f}%", f"{most:.1f}%", most < NEW
    )


def _smaller(rows: Sequence[Row], tasks: Sequence[str]) -> Goal:
    """Hold the tasks, simplest first by the teacher's error, to what is removed of each."""
    gone = [average(rows, task, "params_removed").mean for task in tasks]
    return Goal(
        f"parameters removed, {' > '.join(tasks)}",
        "simpler tasks have smaller nets",
        "falls",
        ", ".join(f"{share:.1f}%" for share in gone),
        all(one > other for one, other in pairwise(gone)),
    )


def _faster(rows: Sequence[Row], tasks: Sequence[str]) -> Goal:
    """Hold the tasks, most FLOPs removed first, to their latencies."""
    order = sorted(tasks, key=lambda task: -average(rows, task, "flops_removed").mean)
    ratios = [average(rows, task, "latency_ratio").mean for task in order]
    return Goal(
        f"latency by FLOPs removed, {', '.join(order)}",
        "not measured",
        "rises as fewer are removed",
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        all(one < other for one, other in pairwise(ratios)),
    )
