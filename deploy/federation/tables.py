"""The errors of a federation's merges: rows for programs, tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.protos.rootstock.operator.v1 import operator_pb2 as pb

ASKED = tuple(each for each in Candidate if each is not Candidate.OWN_SAMPLES)
"""The candidates that labs are asked about."""

NUMBERS = ("teacher_error", *(f"{each}_error" for each in ASKED))
"""Errors in percent on the owning lab's validation data, in the order in which they arise: what the
join would have, calibrated; with no adapter, not."""

UNCALIBRATED = {f"{each}_error": f"{each}_uncalibrated_error" for each in ASKED[1:]}
"""The same candidates' errors without a calibration of the output."""

MEAN_IOU = tuple(name.replace("error", "mean_iou") for name in NUMBERS)
"""Mean IoU in percent, of tasks that label pixels; their error is 100 − pixel accuracy."""

HEADINGS: dict[str, str] = {each: each.label.replace(" ", "\n") for each in ASKED}


def category_rows(answer: pb.GetStatusResponse) -> list[dict[str, Any]]:
    """Return a row for each merge, by net version; None where a step did not apply."""
    merges = sorted(answer.merges, key=lambda merge: merge.net_version or 1 << 62)
    return [
        {
            "category": merge.category,
            "task": merge.task,
            "operation": merge.operation,
            **{
                name: round(merge.numbers[name], 3) if name in merge.numbers else None
                for name in (*NUMBERS, *UNCALIBRATED.values(), *MEAN_IOU)
            },
            "few_samples": int(merge.numbers.get("few_samples", 0)),
            "status": merge.state,
            "reason": merge.reason,
            "seconds": round(merge.seconds, 2),
            "net_version": merge.net_version or None,
        }
        for merge in merges
    ]


def category_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Lay rows out for 80 columns: a table of errors for each task, one of mean IoU where it is."""
    tables = []
    tasks = dict.fromkeys(row["task"] for row in rows)
    for task in tasks:
        own = [row for row in rows if row["task"] == task]
        what = f"{task}: error" if len(tasks) > 1 else "Error"
        names = _shown(own, NUMBERS)
        tables.append(_table(f"{what} in % on each lab's validation data (→ calibrated)", names))
        for row in own:
            before = (row.get(UNCALIBRATED.get(name, "")) for name in names)
            _add(tables[-1], row, map(_percent, (row[name] for name in names), before))
        if any(row[name] is not None for row in own for name in MEAN_IOU):
            names = _shown(own, MEAN_IOU)
            title = f"{task}: mean IoU in %, with the calibration if there is one"
            tables.append(_table(title, names))
            for row in own:
                _add(tables[-1], row, (_percent(row[name]) for name in names))
    return tables


def _shown(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Leave out the closed form where nobody was asked about it."""
    return [
        name
        for name in names
        if not name.startswith(Candidate.CLOSED_FORM)
        or any(row.get(name) is not None for row in rows)
    ]


def _table(title: str, names: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("category", no_wrap=True)
    for name in names:
        whose = name.removesuffix("_error").removesuffix("_mean_iou")
        # Folded: no digit is left out.
        table.add_column(HEADINGS.get(whose, whose), justify="right", overflow="fold")
    table.add_column("sec.", justify="right")
    table.add_column("net", no_wrap=True)
    return table


def _add(table: Table, row: Mapping[str, Any], percentages: Iterable[str]) -> None:
    table.add_row(
        str(row["category"]),
        *percentages,
        f"{row['seconds']:.0f}",
        f"v{row['net_version']}" if row["net_version"] else str(row["status"]),
    )


def _percent(value: float | None, uncalibrated: float | None = None) -> str:
    if value is None:
        return "–"
    before = "" if uncalibrated in (None, value) else f"{uncalibrated:.1f}→"
    return f"{before}{value:.1f}"
