"""``rootstock site``: for a lab's operator."""

from __future__ import annotations

import signal
import threading

import typer

from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.cli.site.adapt import adapt
from rootstock.deploy.cli.site.check import check
from rootstock.deploy.cli.site.sources import sources
from rootstock.deploy.output import print_result
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.state import Status

app = typer.Typer(help="Run and watch a site agent.", no_args_is_help=True)


@app.command()
def run(config: SiteConfigFile) -> None:
    """Train the teacher net, ship it, evaluate and refine on request, until SIGTERM or Ctrl-C."""
    settings = load(config, SiteConfig)
    from rootstock.site_agent.agent import run as run_agent

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_agent(settings, stop)


@app.command()
def status(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Say what the agent at this lab is doing."""
    path = load(config, SiteConfig).state / "status.json"
    if not path.exists():
        raise NotFoundError(f"{path}: no agent has run here yet; start `rootstock site run`")
    answer = Status.parse(path.read_bytes(), what=str(path))
    lines = [f"{answer.site} ({answer.category}): {answer.message or answer.phase}"]
    if answer.steps:
        lines.append(f"  step       {answer.step} of {answer.steps}")
    if answer.error_percent is not None:
        lines.append(f"  teacher    {answer.error_percent:.1f}% error on private validation data")
    if answer.shipped:
        lines.append(f"  shipped    {answer.shipped}")
    lines.append(f"  at         {answer.at}")
    print_result(answer.model_dump(mode="json"), *lines, as_json=as_json)


app.command()(check)
app.command()(adapt)
app.command()(sources)
