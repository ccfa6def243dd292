"""``rootstock coordinator gc``: what is in the store, and the deletion of what nothing needs."""

from __future__ import annotations

from typing import Annotated

import typer

from rootstock.common.config import load
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.cli.access import operations
from rootstock.deploy.cli.options import AsJson, Config
from rootstock.deploy.output import print_result


def gc(
    config: Config,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the blobs that no net version, submission or open merge needs.

    A coordinator that runs does so itself, now and then (table garbage of coordinator.toml). A blob
    stays for garbage.grace_seconds after it was stored last, whatever refers to it.
    """
    from rootstock.coordinator.garbage.collector import collect_garbage
    from rootstock.coordinator.merges.pending import published_plan
    from rootstock.coordinator.net.reader import NetReader
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.plan.heads import HeadsFile

    settings = load(config, CoordinatorConfig)
    if dry_run:
        paths = StatePaths(settings)
        with NetReader.open(settings) as net:
            garbage = collect_garbage(
                net.registry,
                net.store,
                published_plan(paths),
                HeadsFile(paths.heads).current(),
                grace_seconds=settings.garbage.grace_seconds,
                dry_run=True,
            )
    else:
        with operations(settings) as (operator, _):
            garbage = operator.collect_garbage()
    rows = {**garbage.kept, "to delete" if dry_run else "deleted": garbage.deleted}
    print_result(
        {"dry_run": dry_run, **garbage.model_dump(mode="json")},
        *(
            f"{name:<12} {count.blobs:>8} blobs  {count.bytes / 1e6:>10.1f} MB"
            for name, count in rows.items()
        ),
        as_json=as_json,
    )
