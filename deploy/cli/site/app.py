"""``rootstock site``: for a lab's operator."""

from __future__ import annotations

import os
import signal
import threading
from datetime import datetime

import typer

from rootstock.common import signals
from rootstock.common.config import load
from rootstock.common.errors import NotFoundError
from rootstock.common.files import lock_owner
from rootstock.common.times import readable
from rootstock.deploy.cli.options import AsJson, SiteConfigFile
from rootstock.deploy.cli.site.adapt import adapt
from rootstock.deploy.cli.site.check import check
from rootstock.deploy.cli.site.doctor import doctor
from rootstock.deploy.cli.site.join import join
from rootstock.deploy.cli.site.ledger import ledger
from rootstock.deploy.cli.site.log import accept_log, log_status
from rootstock.deploy.cli.site.sources import sources
from rootstock.deploy.output import PEOPLE, StageLines, print_result
from rootstock.site_agent.config import SiteConfig
from rootstock.site_agent.state import Status

app = typer.Typer(help="Run and watch a site agent.", no_args_is_help=True)


@app.command()
def run(config: SiteConfigFile) -> None:
    """Train the teacher net, ship it, evaluate and refine on request, until SIGTERM or Ctrl-C.

    SIGHUP ends it, too, where it comes from a terminal that was closed; a daemon goes on, and finds
    by itself that its log was rotated.
    """
    settings = load(config, SiteConfig)
    from rootstock.site_agent.agent import run as run_agent

    stop = threading.Event()
    for number in signals.ending():
        ends = number != signal.SIGHUP or _has_terminal()
        signal.signal(number, (lambda *_: stop.set()) if ends else (lambda *_: None))
    lines = StageLines(lambda _, text: _say(text))
    run_agent(
        settings,
        stop,
        lambda status: lines.tell(status.site, status.message, status.step, status.steps),
        lambda text: _say(f"warning: {text}"),
    )


@app.command()
def status(config: SiteConfigFile, as_json: AsJson = False) -> None:
    """Say what the agent at this lab is doing, or what it did last."""
    settings = load(config, SiteConfig)
    state = settings.state
    path = state / "status.json"
    runs = lock_owner(state) is not None
    if not path.exists():
        none = (
            "the agent starts" if runs else "no agent has run here yet; start `rootstock site run`"
        )
        raise NotFoundError(f"{path}: {none}")
    answer = Status.parse(path.read_bytes(), what=str(path))
    lines = [f"{answer.site} ({answer.category}): {answer.message or answer.phase}"]
    if not runs:
        ended = answer.phase in ("stopped", "failed")
        lines.append(
            "  runs       no"
            + ("" if ended else ", it was killed in the middle of that")
            + "; start `rootstock site run`"
        )
    if answer.steps:
        lines.append(f"  step       {answer.step} of {answer.steps}")
    if answer.error_percent is not None:
        lines.append(f"  teacher    {answer.error_percent:.1f}% error on private validation data")
    if answer.shipped:
        lines.append(f"  shipped    {answer.shipped}")
    if answer.outcome and answer.outcome != answer.message:
        lines.append(f"  outcome    {answer.outcome}")
    if answer.waiting:
        lines.append(f"  waiting    {answer.waiting}")
    lines.append(f"  at         {readable(answer.at)}")
    log = log_status(settings)
    lines += [f"  log        {line}" for line in log.lines]
    value = {**answer.model_dump(mode="json"), "runs": runs, "log": log.value}
    print_result(value, *lines, as_json=as_json)


def _say(text: str) -> None:
    PEOPLE.print(f"{datetime.now():%H:%M:%S} {text}", soft_wrap=True, markup=False)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


app.command()(join)
app.command()(check)
app.command()(doctor)
app.command()(adapt)
app.command()(sources)
app.command()(accept_log)
app.command()(ledger)
