"""What tailoring has to show, measured on the rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tests.benchmarks.harness.goal import Goal, compared
from tests.benchmarks.harness.rows import chosen, distinct, mean
from tests.benchmarks.papers.nettailor.cells import TOLERANCE, Row

SIMPLE = ("mnist", "digits")
"""The paper's simplest task were digits as well, SVHN's; the first that was measured counts."""


def goals(rows: Sequence[Row]) -> list[Goal]:
    def of(task: str, value: str) -> float:
        return mean(chosen(rows, task=task), value)

    tasks = sorted(distinct(rows, "task"), key=lambda task: of(task, "teacher_error"))
    found = [
        compared(
            f"parameters removed on {task}",
            "73.4% (SVHN)",
            "≥ 60%",
            of(task, "params_removed"),
            "{:.1f}%",
        )
        for task in [task for task in SIMPLE if task in tasks][:1]
    ]
    found += [
        compared(
            f"{task}: error above fine-tuning's",
            "within 0.5 points",
            f"≤ {TOLERANCE} points",
            of(task, "error") - of(task, "teacher_error"),
        )
        for task in tasks
    ]
    most = max(of(task, "new_params_share") for task in tasks)
    found.append(compared("new parameters a task, the most", "about 8%", "< 10%", most, "{:.1f}%"))
    if len(tasks) < 2:
        return found
    # Simplest first, by the teacher's error.
    gone = [of(task, "params_removed") for task in tasks]
    smaller = Goal(
        f"parameters removed, {' > '.join(tasks)}",
        "simpler tasks have smaller nets",
        "falls",
        ", ".join(f"{share:.1f}%" for share in gone),
        all(one > other for one, other in pairwise(gone)),
    )
    order = sorted(tasks, key=lambda task: -of(task, "flops_removed"))
    ratios = [of(task, "latency_ratio") for task in order]
    faster = Goal(
        f"latency by FLOPs removed, {', '.join(order)}",
        "not measured",
        "rises as fewer are removed",
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        all(one < other for one, other in pairwise(ratios)),
    )
    return [*found, smaller, faster]
