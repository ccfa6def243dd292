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


def group() -> typer.Typer:
    """Return the checkout's commands, or in an installed package one that says where they are."""
    if not (CHECKOUT / "tests" / "benchmarks" / "cli.py").is_file():
        return _elsewhere
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    return cast(typer.Typer, import_module("tests.benchmarks.cli").app)


_elsewhere = typer.Typer(
    help="Measure (from a checkout of the repository).",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    invoke_without_command=True,
    add_help_option=False,
)


@_elsewhere.callback()
def _not_installed() -> None:
    raise MissingExtraError(
        "bench: the measurements are part of a checkout, not of the installed package; clone the "
        "repository, run `make .venv/.dev` there, then `.venv/bin/rootstock bench`"
    )
