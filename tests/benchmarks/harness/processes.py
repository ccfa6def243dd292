"""How a measurement starts a module of the checkout as a process of its own."""

from __future__ import annotations

import os
import sys

from tests.support.checkout import CHECKOUT


def command(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module of the checkout; see `environment`."""
    return [sys.executable, "-m", module, *words]


def environment() -> dict[str, str]:
    """Return this process's environment, and the checkout where Python looks for modules last.

    Children have no current folder on their path (``rootstock.common.environment``).
    """
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (known, str(CHECKOUT))))}
