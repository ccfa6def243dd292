"""``rootstock net bundle``: take a net's history away, for whoever is to check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.deploy.cli.access import open_net
from rootstock.deploy.cli.options import AsJson, Config
from rootstock.deploy.output import print_result

VERIFY_FAILED = 1
"""Exit code of `net verify` when it found problems: the answer is no, not an error."""


def bundle(
    config: Config,
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the signed log, manifests, reports, versions and envelopes, but no weights.

    `rootstock net verify --offline FOLDER` checks it anywhere.
    """
    from rootstock.common.identity.keys import load
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.provenance.bundle import write_bundle

    settings, opened = open_net(config)
    with opened as net:
        key = load(StatePaths(settings).key)
        entries = write_bundle(net, key, folder)
    value = {"folder": str(folder), "entries": entries, "key": key.public_key.hex()}
    lines = [
        f"{folder}: {entries} entries of the log, and what they name",
        f"verify it with: rootstock net verify --offline {folder} --key {key.public_key.hex()}",
    ]
    print_result(value, *lines, as_json=as_json)


def verify_offline(folder: Path, key: str | None, *, as_json: bool) -> None:
    """Check a bundle, print what is wrong with it, and end with 1 if anything is."""
    from rootstock.coordinator.provenance.offline import verify_bundle

    head, problems = verify_bundle(folder, key)
    lines = [f"{problem.where}: {problem.what} ({problem.rule})" for problem in problems]
    if not problems:
        lines = [f"{head.size} entries, signed {head.at}, and all that they name: as signed"]
        if key is None:
            lines.append(f"by the key in {folder}: compare it with the one that you know (--key)")
    value = {
        "ok": not problems,
        "entries": head.size,
        "root": head.root,
        "signed_at": head.at,
        "problems": [problem.model_dump() for problem in problems],
    }
    print_result(value, *lines, as_json=as_json)
    if problems:
        raise typer.Exit(VERIFY_FAILED)
