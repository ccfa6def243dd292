"""``rootstock coordinator gc``: what the store holds, and the deletion of what nothing needs."""

from __future__ import annotations

from typing import Annotated

import typer

from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.cli.net.options import AsJson, Config
from rootstock.deploy.output import RESULT, print_json


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
    with needs_coordinator("coordinator gc"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.garbage.collector import collect_garbage
        from rootstock.coordinator.merges.pending import published_plan
        from rootstock.coordinator.net.reader import NetReader
        from rootstock.coordinator.paths import StatePaths
        from rootstock.coordinator.plan.heads import HeadsFile
    from rootstock.common.config import load
    from rootstock.deploy.cli.operations import operations

    settings = load(config, CoordinatorConfig)
    if dry_run:
        paths = StatePaths(settings)
        with NetReader.open(settings) as view:
            found = collect_garbage(
                view.registry,
                view.store,
                published_plan(paths),
                HeadsFile(paths.heads).current(),
                grace_seconds=settings.garbage.grace_seconds,
                dry_run=True,
            )
    else:
        with operations(settings) as (operator, _):
            found = operator.collect_garbage()
    if as_json:
        print_json({"dry_run": dry_run, **found.model_dump(mode="json")})
        return
    rows = {**found.kept, "to delete" if dry_run else "deleted": found.deleted}
    for name, count in rows.items():
        RESULT.print(f"{name:<12} {count.blobs:>8} blobs  {count.bytes / 1e6:>10.1f} MB")
