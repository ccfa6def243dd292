"""The commands of ``rootstock``, put together."""

from __future__ import annotations

import typer

from rootstock import __version__
from rootstock.deploy.cli import bench, config, federation
from rootstock.deploy.cli.coordinator import app as coordinator
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.net import app as net
from rootstock.deploy.cli.site import app as site

app = typer.Typer(
    name="rootstock",
    help="Grow one universal net out of nets that labs trained on data they never share.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=CoordinatorGroup,
)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(site.app, name="site")
app.add_typer(net.app, name="net")
app.add_typer(config.app, name="config")
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
