"""The results page: a section for each experiment, written by its command alone."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

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
