"""``rootstock net plan | grow | rollback``: what the net will become, and the way back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.cli.net.options import AsJson, Config
from rootstock.deploy.output import RESULT, print_json

if TYPE_CHECKING:
    from rootstock.coordinator.growth.planning import GrowthPlan


def plan(config: Config, as_json: AsJson = False) -> None:
    """Show which operations are to come, in waves: what is in one wave runs side by side."""
    with needs_coordinator("net plan"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.merges.pending import growth_plan
        from rootstock.coordinator.net.reader import NetReader
        from rootstock.coordinator.paths import StatePaths
    from rootstock.common.config import load

    settings = load(config, CoordinatorConfig)
    with NetReader.open(settings) as view:
        found = growth_plan(view, StatePaths(settings))
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    _print(found, automatic=settings.growth.automatic)


def _print(found: GrowthPlan, *, automatic: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if found.operations:
        table = Table(title="Operations to come", title_justify="left", box=SIMPLE_HEAD)
        for heading in ("wave", "operation", "category", "task", "from", "submission"):
            table.add_column(heading, overflow="fold")
        for each in found.operations:
            table.add_row(
                str(each.wave),
                each.operation,
                each.category,
                each.task,
                each.site,
                each.submission,
            )
        RESULT.print(table)
        if not automatic:
            RESULT.print("held (growth.automatic = false) until `rootstock net grow`")
    else:
        RESULT.print("nothing is to come: no teacher net waits")
    for refusal in found.refusals:
        RESULT.print(f"{refusal.submission} of {refusal.site}: {refusal.reason}", soft_wrap=True)
    if found.unjoined:
        pairs = ", ".join(f"{category} → {task}" for category, task in found.unjoined)
        RESULT.print(f"not joined even then: {pairs}", soft_wrap=True)


def grow(config: Config, as_json: AsJson = False) -> None:
    """Let every operation that is held go ahead. Asks the running coordinator."""
    with needs_coordinator("net grow"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.deploy.client import OperatorClient
    from rootstock.common.config import load

    with OperatorClient.of_state(load(config, CoordinatorConfig).state) as operator:
        merges = operator.grow()
    if as_json:
        print_json({"released": merges})
        return
    RESULT.print(f"go ahead: {', '.join(merges)}" if merges else "nothing is held")


def rollback(
    number: Annotated[int, typer.Argument(help="The version to take back, as `net log` lists it.")],
    config: Config,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history, for people.")],
    and_later: Annotated[
        bool, typer.Option("--and-later", help="Take back the versions that stand on it, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a version back: its parent is the head again. Asks the running coordinator.

    Nothing is deleted, and a number is never used twice.
    """
    with needs_coordinator("net rollback"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.deploy.client import OperatorClient
    from rootstock.common.config import load

    with OperatorClient.of_state(load(config, CoordinatorConfig).state) as operator:
        answer = operator.roll_back(number, reason=reason, and_later=and_later)
    head = answer.head or None
    if as_json:
        print_json({"rolled_back": list(answer.versions), "head": head})
        return
    taken = ", ".join(f"v{version}" for version in answer.versions)
    RESULT.print(f"rolled back: {taken}; the head is {f'v{head}' if head else 'not founded'}")
