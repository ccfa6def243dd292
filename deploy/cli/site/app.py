"""``rootstock site``: for a lab's operator."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from rootstock.common.errors import NotFoundError
from rootstock.deploy.cli.site import adapt as site_adapt
from rootstock.deploy.cli.site import sources as site_sources
from rootstock.deploy.output import RESULT, print_json

app = typer.Typer(help="Run and watch a site agent.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", "-c", help="site.toml")]


@app.command()
def run(config: Config) -> None:
    """Train the teacher net, ship it, evaluate and refine on request, until SIGTERM or Ctrl-C."""
    from rootstock.common.config import load
    from rootstock.site_agent.config import SiteConfig

    settings = load(config, SiteConfig)
    from rootstock.site_agent.agent import run as run_agent

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_agent(settings, stop)


@app.command()
def status(
    config: Config, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Say what the agent at this lab is doing."""
    from rootstock.common.config import load
    from rootstock.site_agent.config import SiteConfig
    from rootstock.site_agent.state import Status

    path = load(config, SiteConfig).state / "status.json"
    if not path.exists():
        raise NotFoundError(f"{path}: no agent has run here yet; start `rootstock site run`")
    answer = Status.parse(path.read_bytes(), what=str(path))
    if as_json:
        print_json(answer.model_dump(mode="json"))
        return
    RESULT.print(f"{answer.site} ({answer.category}): {answer.message or answer.phase}")
    if answer.steps:
        RESULT.print(f"  step       {answer.step} of {answer.steps}")
    if answer.error_percent is not None:
        RESULT.print(f"  teacher    {answer.error_percent:.1f}% error on private validation data")
    if answer.shipped:
        RESULT.print(f"  shipped    {answer.shipped}")
    RESULT.print(f"  at         {answer.at}")


for command in (site_adapt.adapt, site_sources.sources):
    app.command()(command)
