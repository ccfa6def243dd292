"""``rootstock net``: see the transplant net, trust its history, take a composition away.

Read straight from the coordinator's state folder; no server need run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.common.errors import ConfigurationError
from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.net import bundle, export, growth, history, learn, predict, show
from rootstock.deploy.cli.options import AsJson, Version
from rootstock.deploy.output import note, print_result

app = typer.Typer(
    help="See, verify and export net versions.", no_args_is_help=True, cls=CoordinatorGroup
)

for command in (
    show.show,
    history.log,
    history.diff,
    bundle.bundle,
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
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="coordinator.toml; not with --offline.")
    ] = None,
    version: Version = None,
    probe: Annotated[
        bool, typer.Option(help="Also compose every join and compare what it answers.")
    ] = True,
    offline: Annotated[
        Path | None,
        typer.Option(help="Folder that `net bundle` wrote: no coordinator is needed."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="With --offline: the coordinator's key in hex, known from elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a version is whole, signed for, and answers as its joins always did.

    The log is replayed, and the database must say what the log says.
    """
    if offline is not None:
        bundle.verify_offline(offline, key, as_json=as_json)
        return
    if config is None:
        raise ConfigurationError("name a coordinator.toml with --config, or a folder: --offline")
    from rootstock.common.identity.keys import load as load_key
    from rootstock.coordinator.net.verify import verify_version
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.provenance.verify import unsigned, verify_log

    settings, opened = open_net(config)
    with opened as net:
        paths = StatePaths(settings)
        public_key = load_key(paths.key).public_key
        net.registry.check()
        problems = verify_log(net.registry, paths.log_head, public_key)
        later = 0 if problems else unsigned(net.registry, paths.log_head, public_key)
        number = version or net.head
        if number is not None:
            problems += verify_version(net, number, public_key, probe=probe)
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
    value = {"ok": not problems, "version": number, "unsigned": later, "problems": rows}
    if later:
        note(
            f"the last {later} entries of the log are signed by nobody yet: they were written "
            "while no coordinator ran, or as it was killed; it signs them when it starts"
        )
    print_result(value, *lines, as_json=as_json)
    if problems:
        raise typer.Exit(bundle.VERIFY_FAILED)
