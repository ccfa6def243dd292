"""Tables: made of rows, shown on a terminal and on the results page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tests.benchmarks.harness.rows import Row, Value, average, chosen, distinct, read

Grid = Sequence[Sequence[str]]
"""A table's head, and its lines."""
Column = Callable[[Sequence[Any]], object]
"""What a column says of a line's rows; None is a dash."""
Key = str | Callable[[Any], object]
"""An attribute's name, or a function of the row."""
DASH = "–"


def grid(
    rows: Iterable[Row], by: Mapping[str, Key], columns: Mapping[str, Column]
) -> list[list[str]]:
    """Return the head, and a line for each kind of rows in their order.

    Parameters
    ----------
    rows
        What was measured.
    by
        What tells kinds apart, by the title of its column.
    columns
        The columns after these, by title.
    """
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(read(key)(row) for key in by.values()), []).append(row)
    lines = [[*by, *columns]]
    for kind, own in kinds.items():
        lines.append([*(str(part) or DASH for part in kind), *cells(own, columns)])
    return lines


def cells(rows: Sequence[Row], columns: Mapping[str, Column]) -> list[str]:
    """Return what columns say of a line's rows."""
    return [DASH if (said := column(rows)) is None else str(said) for column in columns.values()]


def averaged(value: Value, shown: str = "{}", **wanted: object) -> Column:
    """Return a column of a value's mean over a line's rows, or over those with these values."""

    def column(rows: Sequence[Any]) -> str | None:
        found = average(chosen(rows, **wanted), value)
        return None if found is None else shown.format(found)

    return column


def across(rows: Iterable[Row], name: str, value: Value) -> dict[str, Column]:
    """Return a column for each value of an attribute."""
    return {str(one): averaged(value, **{name: one}) for one in distinct(rows, name)}


def terminal(table: Grid, *, left: int = 1, wraps: str = "") -> Table:
    """Return a table for people; columns after the first `left` are numbers, one may wrap."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    head, *lines = table
    for place, title in enumerate(head):
        justify: Literal["left", "right"] = "left" if place < left else "right"
        shown.add_column(title, justify=justify, no_wrap=title != wraps)
    for line in lines:
        shown.add_row(*line)
    return shown


def markdown(table: Grid) -> str:
    """Return a table for the results page."""
    head, *lines = table
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))
