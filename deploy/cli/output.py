"""What a person or a program reads: JSON on standard output, everything else on standard error."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console

PEOPLE = Console(stderr=True, highlight=False)
"""Progress and text beside `--json`."""


def print_json(value: dict[str, Any]) -> None:
    """Print exactly one JSON object on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
