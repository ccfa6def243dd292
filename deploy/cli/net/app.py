"""``rootstock net``: see the transplant net, trust its history, take a composition away.

Read straight from the coordinator's state folder; no server need run.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.net import export, growth, history, learn, predict, show
from rootstock.deploy.cli.options import AsJson, Config, Version
from rootstock.deploy.output import print_result

app = typer.Typer(
    help="See, verify and export net versions.", no_args_is_help=True, cls=CoordinatorGroup
)

VERIFY_FAILED = 1
"""Exit code of `net verify` when it found problems: the answer is no, not an error."""

for command in (
    show.show,
    history.log,
    history.diff,
    predict.predict,
    export.export,
    growth.plan,
    growth.grow,
    growth.rollback,
    learn.found,
    learn.learn,
    learn.connect,
):
    app.command()(command)


@app.command()
def verify(
    config: Config,
    version: Version = None,
    probe: Annotated[
        bool, typer.Option(help="Also compose every join and compare what it answers.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check that a version is whole, signed for, and answers as its joins always did.

    The log is replayed, and the database must say what the log says.
    """
    from rootstock.common.identity.keys import load as load_key
    from rootstock.coordinator.net.verify import verify_version
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.provenance.verify import verify_log

    settings, opened = open_net(config)
    with opened as net:
        paths = StatePaths(settings)
        key = load_key(paths.key).public_key
        net.registry.check()
        problems = verify_log(net.registry, paths.log_head, key)
        number = version or net.head
        if number is not None:
            problems += verify_version(net, number, key, probe=probe)
        elif not problems:
            number_of(net)  # says that there is no net
    lines = [f"{problem.where}: {problem.what} ({problem.rule})" for problem in problems]
    if not problems:
        lines = [
            f"version {number}: every blob is there, matches its digest and is signed for",
            "the log is whole, and the database says what the log says",
        ]
        if probe:
            lines.append("every join answers, bit by bit, as in the version that added it")
    rows = [problem.model_dump() for problem in problems]
    value = {"ok": not problems, "version": number, "problems": rows}
    print_result(value, *lines, as_json=as_json)
    if problems:
        raise typer.Exit(VERIFY_FAILED)
