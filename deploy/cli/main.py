"""``rootstock``: the one command line.

Errors of ours end with one line and the exit code of their class (``rootstock.common.errors``); a
command line that is none ends with 2, an interruption with 130; anything else is a fault of ours
and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import typer

from rootstock import __version__
from rootstock.common.environment import isolate
from rootstock.common.errors import RootstockError
from rootstock.deploy.cli import bench, federation
from rootstock.deploy.cli.coordinator import app as coordinator
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.net import app as net
from rootstock.deploy.cli.site import app as site
from rootstock.deploy.output import whole_output

INTERRUPTED = 130
"""Typer's exit code after Ctrl-C."""

app = typer.Typer(
    name="rootstock",
    help="Grow one universal net out of nets that labs trained on data they never share.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    cls=CoordinatorGroup,
)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(site.app, name="site")
app.add_typer(net.app, name="net")
bench.add_to(app)
app.command()(federation.demo)
app.command()(federation.up)
app.command()(federation.down)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rootstock {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; the entry point of the ``rootstock`` script."""
    isolate(os.environ)
    try:
        with whole_output():
            app()
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
