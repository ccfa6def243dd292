"""The experiments' tables: for a terminal of 80 columns, and for the results page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tests.benchmarks.papers.transplant import summary
from tests.benchmarks.papers.transplant.cells import ALL, CEILING, Row

TITLES = {
    1: "Experiment 1: an adapter in a net of one's own, channels reordered",
    2: "Experiment 2: categories onto another category's classification module",
    3: "Experiment 3: categories onto another category's segmentation module",
    4: "Experiment 4: categories onto a module learned from all the others",
}
_DASH = "–"


def unit(experiment: int) -> str:
    """Say what the numbers are."""
    return "pixel accuracy in %" if experiment == 3 else "error in %"


def terminal(rows: Sequence[Row]) -> Table:
    """Return the table of one experiment: a line per method and adapter, a column per samples."""
    experiment = rows[0].experiment
    table = Table(
        title=f"{TITLES[experiment]}\n{unit(experiment)} on test images, mean and 95% interval "
        "over seeds",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    counts = summary.sample_counts(rows)
    table.add_column("method", no_wrap=True)
    table.add_column("adapter", no_wrap=True)
    for count in counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for method, adapter in summary.kinds(rows):
        if method != CEILING:
            table.add_row(method, adapter, *_cells(rows, method, adapter, counts))
    for label, value in footer(rows):
        table.add_row(label, "", value)
    return table


def footer(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the teacher and the ceilings."""
    lines = [("teacher", str(summary.interval(_one_each(rows), summary.teacher)))]
    for method, adapter in summary.kinds(rows):
        if method == CEILING:
            found = summary.chosen(rows, method, adapter, ALL)
            lines.append((f"ceiling {adapter}", str(summary.interval(found, summary.error))))
    return lines


def markdown(rows: Sequence[Row]) -> str:
    """Return the tables of one experiment for the results page."""
    experiment = rows[0].experiment
    counts = summary.sample_counts(rows)
    head = ["method", "adapter", *(f"n={count}" for count in counts)]
    lines = [_line(head), _line(["---"] * len(head))]
    for method, adapter in summary.kinds(rows):
        if method == CEILING:
            continue
        lines.append(_line([method, adapter, *_cells(rows, method, adapter, counts)]))
        papers = summary.PAPER.get((experiment, method, adapter))
        if papers:
            numbers = [f"{papers[n]:.2f}" if n in papers else _DASH for n in counts]
            lines.append(_line(["*the paper's*", adapter, *numbers]))
    text = "\n".join(lines)
    text += "\n\n" + "; ".join(f"{label}: {value}" for label, value in footer(rows)) + ".\n"
    calibrated = _calibrated(rows, counts)
    if calibrated:
        text += f"\nWith scale and bias of the output set by the lab:\n\n{calibrated}\n"
    return text + _by_category(rows, counts)


def _calibrated(rows: Sequence[Row], counts: Sequence[int]) -> str:
    lines = []
    for method, adapter in summary.kinds(rows):
        shown = [
            summary.interval(summary.chosen(rows, method, adapter, n), summary.calibrated)
            for n in ([ALL] if method == CEILING else counts)
        ]
        if any(shown):
            numbers = [_DASH if one is None else str(one) for one in shown]
            padded = numbers + [_DASH] * (len(counts) - len(numbers))
            label = "ceiling (all images)" if method == CEILING else method
            lines.append(_line([label, adapter, *padded]))
    if not lines:
        return ""
    head = ["method", "adapter", *(f"n={count}" for count in counts)]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines])


def _by_category(rows: Sequence[Row], counts: Sequence[int]) -> str:
    """Return `auto` and direct-learn by category, as the paper's tables have them."""
    categories = list(dict.fromkeys(row.category for row in rows))
    if len(categories) < 2:
        return ""
    head = ["n", "method", *categories]
    lines = []
    for count in reversed(counts):
        for method, adapter in summary.kinds(rows):
            if method not in ("direct-learn", "back-distill", "auto"):
                continue
            found = summary.chosen(rows, method, adapter, count)
            if found:
                numbers = [
                    str(summary.interval([r for r in found if r.category == c], summary.error))
                    for c in categories
                ]
                lines.append(_line([str(count), f"{method} {adapter}", *numbers]))
    body = "\n".join([_line(head), _line(["---"] * len(head)), *lines])
    return f"\nBy category:\n\n{body}\n"


def _cells(rows: Sequence[Row], method: str, adapter: str, counts: Sequence[int]) -> list[str]:
    found = (
        summary.interval(summary.chosen(rows, method, adapter, n), summary.error) for n in counts
    )
    return [_DASH if one is None else str(one) for one in found]


def _one_each(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each category and seed."""
    return list({(row.category, row.seed): row for row in rows}.values())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
