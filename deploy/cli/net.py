"""``rootstock net``: see the transplant net, trust its history, take a composition away.

Read straight from the coordinator's state folder; no server need run.
"""

from __future__ import annotations

import typer

from deploy.cli import net_export, net_history, net_predict, net_show
from deploy.cli.net_options import AsJson, Config, Version, number_of, open_net
from deploy.cli.output import RESULT, print_json

app = typer.Typer(help="See, verify and export net versions.", no_args_is_help=True)

VERIFY_FAILED = 1
"""Exit code of `net verify` when it found problems: the answer is no, not an error."""


app.command()(net_show.show)
app.command()(net_history.log)
app.command()(net_history.diff)
app.command()(net_predict.predict)
app.command()(net_export.export)


@app.command()
def verify(config: Config, version: Version = None, as_json: AsJson = False) -> None:
    """Check that every blob is there, matches its digest, and traces to a signature."""
    settings, opened = open_net(config, "verify")
    from common.identity.keys import load_or_create
    from coordinator.places import Places
    from coordinator.verification import verify_version

    with opened as view:
        number = number_of(view, version)
        key = load_or_create(Places(settings).key).public_key
        problems = verify_version(view, number, key)
    if as_json:
        rows = [problem.model_dump() for problem in problems]
        print_json({"ok": not problems, "version": number, "problems": rows})
    elif problems:
        for problem in problems:
            RESULT.print(f"{problem.where}: {problem.what} ({problem.rule})", soft_wrap=True)
    else:
        RESULT.print(f"version {number}: every blob is there, matches its digest and is signed for")
    if problems:
        raise typer.Exit(VERIFY_FAILED)
