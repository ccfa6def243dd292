"""The results page: a section for each experiment, written by its command alone."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = "RESULTS.md"
FIGURES = "figures"
ROWS = "rows"
_HEAD = """# Results

Written by the commands that each section names; no number is entered by hand. Each command replaces
its own section. Test images are seen by the last evaluation alone. "met" is what the seeds support
at 95%, one-sided and paired, "open" what the mean alone meets; in sections without every seed's
rows, which were made before, "met" is by the mean alone.
"""


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    name: str
    """Stable: the section of that name is replaced."""
    title: str
    command: str
    body: str
    machine: str = ""
    """Where it was made; "" is here, now."""


def write(folder: Path, part: Section) -> Path:
    """Put a section in its place on the page; return the page."""
    page = folder / PAGE
    text = page.read_text() if page.exists() else ""
    text = f"{_HEAD}\n{text[max(text.find('<!-- begin'), 0) :]}"
    begin, end = f"<!-- begin {part.name} -->", f"<!-- end {part.name} -->"
    parts = (
        f"{begin}\n## {part.title}",
        f"`{part.command}`",
        part.machine or machine(),
        part.body.strip(),
    )
    block = "\n\n".join(parts) + f"\n{end}\n"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    there = found.search(text) is not None
    text = found.sub(lambda _: block, text) if there else f"{text.rstrip()}\n\n{block}"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return page


def write_rows(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Keep a section's rows, of every seed, as JSON lines."""
    path = folder / ROWS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_rounded(row), ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave off what no measurement of these means: a float has six significant digits."""
    return {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


def machine() -> str:
    """Say where and with what the numbers were made."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {cores} cores, "
        f"one thread a process, Python {platform.python_version()}, {packages}; {_commit()}."
    )


def _commit() -> str:
    """Name the commit of this checkout, and whether there is more than it has."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        # What a command writes itself is no change of what it measures.
        changed = _git(
            "status",
            "--porcelain",
            "--",
            ".",
            ":!tests/benchmarks/RESULTS.md",
            f":!tests/benchmarks/{FIGURES}",
            f":!tests/benchmarks/{ROWS}",
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return f"commit {commit}{' and changes' if changed else ''}"


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parents[3]), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
