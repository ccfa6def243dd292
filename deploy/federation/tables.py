"""The errors of a federation's merges: rows for programs, tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
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

_CATEGORY = 18
"""Columns that are left to names of categories, and to the table's edge."""

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


def category_tables(rows: Sequence[Mapping[str, Any]], width: int = 80) -> list[Table]:
    """Lay rows out for a terminal: a table of errors for each task, one of mean IoU where it is.

    No number is ever broken: an arrow ends its line where the columns do not fit, and long names
    of categories are folded.
    """
    tables = []
    tasks = dict.fromkeys(row["task"] for row in rows)
    for task in tasks:
        own = [row for row in rows if row["task"] == task]
        what = f"{task}: error" if len(tasks) > 1 else "Error"
        title = f"{what} in % on each lab's validation data (→ calibrated)"
        tables.append(_table(title, own, _shown(own, NUMBERS), width))
        if any(row[name] is not None for row in own for name in MEAN_IOU):
            title = f"{task}: mean IoU in %, with the calibration if there is one"
            tables.append(_table(title, own, _shown(own, MEAN_IOU), width))
    return tables


def _shown(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Leave out the closed form where nobody was asked about it."""
    return [
        name
        for name in names
        if not name.startswith(Candidate.CLOSED_FORM)
        or any(row.get(name) is not None for row in rows)
    ]


def _table(
    title: str, rows: Iterable[Mapping[str, Any]], names: Sequence[str], width: int
) -> Table:
    whose = [name.removesuffix("_error").removesuffix("_mean_iou") for name in names]
    headings = ["category", *(HEADINGS.get(each, each) for each in whose), "sec.", "net"]
    cells = [
        [
            str(row["category"]),
            *(_percent(row[name], row.get(UNCALIBRATED.get(name, ""))) for name in names),
            f"{row['seconds']:.0f}",
            f"v{row['net_version']}" if row["net_version"] else str(row["status"]),
        ]
        for row in rows
    ]
    columns = list(zip(headings, *cells, strict=True))
    taken = sum(1 + max(map(cell_len, "\n".join(column).splitlines())) for column in columns[1:])
    if taken + _CATEGORY > width:
        cells = [[cell.replace("→", "→\n") for cell in row] for row in cells]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(headings[-1], no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _percent(value: float | None, uncalibrated: float | None = None) -> str:
    if value is None:
        return "–"
    before = "" if uncalibrated in (None, value) else f"{uncalibrated:.1f}→"
    return f"{before}{value:.1f}"
