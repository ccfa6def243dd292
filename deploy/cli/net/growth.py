"""``rootstock net plan | grow | rollback``: what the net will become, and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from rootstock.common.config import load
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.cli.access import running
from rootstock.deploy.cli.options import AsJson, Config, Reason
from rootstock.deploy.output import print_result, table

if TYPE_CHECKING:
    from rootstock.coordinator.growth.planning import GrowthPlan


def plan(config: Config, as_json: AsJson = False) -> None:
    """Show which operations are to come, in waves: what is in one wave runs side by side."""
    from rootstock.coordinator.merges.pending import growth_plan
    from rootstock.coordinator.net.reader import NetReader

    settings = load(config, CoordinatorConfig)
    with NetReader.open(settings) as net:
        growth = growth_plan(net, settings)
    shown = _shown(growth, automatic=settings.growth.automatic)
    print_result(dataclasses.asdict(growth), *shown, as_json=as_json)


def _shown(growth: GrowthPlan, *, automatic: bool) -> Iterator[RenderableType]:
    if growth.operations:
        headings = ("wave", "operation", "category", "task", "from", "submission")
        rows = (
            (
                str(each.wave),
                each.operation,
                each.category,
                each.task,
                each.site,
                each.submission,
            )
            for each in growth.operations
        )
        yield table("Operations to come", headings, rows)
        if not automatic:
            yield "held (growth.automatic = false) until `rootstock net grow`"
    else:
        yield "nothing is to come: no teacher net waits"
    for refusal in growth.refusals:
        yield f"{refusal.submission} of {refusal.site}: {refusal.reason}"
    if growth.unjoined:
        pairs = ", ".join(f"{category} → {task}" for category, task in growth.unjoined)
        yield f"not joined even then: {pairs}"


def grow(config: Config, as_json: AsJson = False) -> None:
    """Let every operation that is held go ahead. Asks the running coordinator."""
    with running(config) as operator:
        merges = operator.grow()
    line = f"go ahead: {', '.join(merges)}" if merges else "nothing is held"
    print_result({"released": merges}, line, as_json=as_json)


def rollback(
    number: Annotated[int, typer.Argument(help="The version to take back, as `net log` lists it.")],
    config: Config,
    reason: Reason,
    and_later: Annotated[
        bool, typer.Option("--and-later", help="Take back the versions that stand on it, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a version back: its parent is the head again. Asks the running coordinator.

    Nothing is deleted, and a number is never used twice.
    """
    with running(config) as operator:
        answer = operator.roll_back(number, reason=reason, and_later=and_later)
    versions, head = list(answer.versions), answer.head or None
    taken = ", ".join(f"v{version}" for version in versions)
    print_result(
        {"rolled_back": versions, "head": head},
        f"rolled back: {taken}; the head is {f'v{head}' if head else 'not founded'}",
        as_json=as_json,
    )
