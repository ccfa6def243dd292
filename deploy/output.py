"""What commands print, and how they take lists.

Results go to standard output, for people or as one JSON object; all else to standard error.
"""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

PEOPLE = Console(stderr=True, highlight=False)
"""Progress, notes and errors."""

RESULT = Console(highlight=False)
"""What a command was asked for, when it was not asked for as JSON."""


def print_json(value: dict[str, Any]) -> None:
    """Print exactly one JSON object on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_plain(*lines: str) -> None:
    """Print lines on standard output as they are: no markup, no colour, no folding."""
    typer.echo("\n".join(lines))


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of an option's value that are apart by commas, without empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
