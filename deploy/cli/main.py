"""``rootstock``: the one command line.

Errors of ours end with one line and the exit code of their class (``rootstock.common.errors``); a
command line that is none ends with 2, an interruption with 130; anything else is a fault of ours
and keeps its traceback.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import typer

from rootstock.common.config import expand
from rootstock.common.environment import isolate
from rootstock.common.errors import RootstockError
from rootstock.common.files import PRIVATE_UMASK
from rootstock.deploy.output import whole_output

INTERRUPTED = 130
"""Typer's exit code after Ctrl-C."""


def _at_home(argument: str) -> str:
    """Return an argument with its ~ replaced, which shells leave as it is in --state=~/net."""
    match = re.fullmatch(r"(--[a-z-]+=)?(~/.*)", argument, re.DOTALL)
    return argument if match is None else f"{match[1] or ''}{expand(match[2])}"


def main() -> None:
    """Run the command line; the entry point of the ``rootstock`` script."""
    os.umask(PRIVATE_UMASK)
    isolate(os.environ)
    # Not before: gRPC takes its settings from the environment when it is imported.
    from rootstock.deploy.cli.commands import app

    try:
        with whole_output():
            app([_at_home(each) for each in sys.argv[1:]])
    except RootstockError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("interrupted")
        raise


def _say(text: str) -> None:
    with suppress(OSError):  # a terminal that has gone leaves the exit code
        typer.echo(text, err=True)


if __name__ == "__main__":
    main()
