"""The results page: a section for each experiment and data set, written by the command alone."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deploy.benchmarks.transplant import goals, tables
from deploy.benchmarks.transplant.cells import Row

PAGE = "RESULTS.md"
FIGURES = "figures"
_HEAD = """# Results

Written by the commands that each section names; no number is entered by hand. Each command replaces
its own section. Test images are seen by the last evaluation alone.
"""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    name: str
    """Stable: the section of that name is replaced."""
    title: str
    command: str
    body: str


def section(
    rows: Sequence[Row], *, command: str, seconds: float, pictures: Sequence[str]
) -> Section:
    """Return the section of one experiment on one data set."""
    experiment, data = rows[0].experiment, rows[0].data
    seeds = sorted({row.seed for row in rows})
    shown = "".join(f"\n![{picture}]({FIGURES}/{picture})\n" for picture in pictures)
    body = (
        f"{tables.unit(experiment).capitalize()}, mean over "
        f"{', '.join(dict.fromkeys(row.category for row in rows))} and seeds "
        f"{', '.join(map(str, seeds))}; ± half a 95% interval over seeds. "
        f"{round(seconds)} s with teachers in the cache or trained.\n\n"
        f"{tables.markdown(rows)}\n{goals.markdown(rows)}{shown}"
    )
    return Section(
        f"transplant-{experiment}-{data}", f"{tables.TITLES[experiment]} ({data})", command, body
    )


def write(folder: Path, part: Section) -> Path:
    """Put a section in its place on the page; return the page."""
    page = folder / PAGE
    text = page.read_text() if page.exists() else _HEAD
    begin, end = f"<!-- begin {part.name} -->", f"<!-- end {part.name} -->"
    parts = (f"{begin}\n## {part.title}", f"`{part.command}`", machine(), part.body.strip())
    block = "\n\n".join(parts) + f"\n{end}\n"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    there = found.search(text) is not None
    text = found.sub(lambda _: block, text) if there else f"{text.rstrip()}\n\n{block}"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return page


def machine() -> str:
    """Say where and with what the numbers were made."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {cores} cores, "
        f"Python {platform.python_version()}, {packages}."
    )
