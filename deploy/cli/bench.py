"""``rootstock bench``: the measurements of a checkout; they are not installed with the product."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import cast

import typer

from rootstock.common.errors import MissingExtraError

CHECKOUT = Path(__file__).resolve().parents[2]
"""The repository's root, where this package runs from one."""


def add_to(app: typer.Typer) -> None:
    """Add the checkout's commands, or in an installed package one that says where they are."""
    if not (CHECKOUT / "tests" / "benchmarks" / "cli.py").is_file():
        anything = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command("bench", context_settings=anything, add_help_option=False)(_not_installed)
        return
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    app.add_typer(cast(typer.Typer, import_module("tests.benchmarks.cli").app), name="bench")


def _not_installed() -> None:
    """Measure (from a checkout of the repository)."""
    raise MissingExtraError(
        "bench: the measurements are part of a checkout, not of the installed package; clone the "
        "repository, run `make .venv/.dev` there, then `.venv/bin/rootstock bench`"
    )
