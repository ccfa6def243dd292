"""``rootstock coordinator heads``: what labs with recipe `compatible` train below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootstock.common.errors import NotFoundError
from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.cli.net.options import AsJson, Config, number_of
from rootstock.deploy.cli.operations import operations
from rootstock.deploy.output import RESULT, print_json

if TYPE_CHECKING:
    from rootstock.common.protocol import Heads

app = typer.Typer(
    help="Auxiliary heads that labs train below, so that they fit before any adapter.",
    no_args_is_help=True,
)


@app.command()
def publish(
    config: Config,
    source: Annotated[
        Literal["net", "initial"],
        typer.Option("--from", help="The net's task modules, or the plan's initial ones."),
    ] = "net",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images, no labels: learn a rotation head on them, too."),
    ] = None,
    category: Annotated[str, typer.Option(help="Above whose module; default: the founder's.")] = "",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000)] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Publish heads, in place of those there are, and tell every lab.

    Labs that have shipped stay as they are; those that train or wait take the new ones.
    """
    with needs_coordinator("coordinator heads publish"):
        from rootstock.common.compatible.rotation import RotationSettings
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.merges.pending import published_plan
        from rootstock.coordinator.net.reader import NetReader
        from rootstock.coordinator.paths import StatePaths
        from rootstock.coordinator.plan import heads
    from rootstock.common.config import load

    settings = load(config, CoordinatorConfig)
    plan = published_plan(StatePaths(settings))
    rotation, told = None, None
    with NetReader.open(settings) as view:
        if source == "net" or images is not None:
            number = number_of(view, None)
            tree = view.tree(number)
        if source == "net":
            origin, modules = f"net version {number}", heads.heads_of_net(tree, plan)
        else:
            origin, modules = "initial weights", dict(plan.initial_task_modules)
        if images is not None:
            name = category or heads.founder_of(tree, plan)
            if name not in tree.category_modules:
                held = ", ".join(sorted(tree.category_modules))
                raise NotFoundError(f"the net has no category '{name}'; it holds: {held}")
            rotation, told = heads.learn_rotation(
                view.store,
                plan,
                tree.category_modules[name],
                images,
                RotationSettings(steps=steps, seed=seed),
            )
            origin += f", rotation above {name}"
    with operations(settings) as (operator, running):
        published = operator.publish_heads(origin, modules, rotation)
    if as_json:
        print_json({**_told(published), "rotation_told": told, "coordinator_runs": running})
        return
    _print(published)
    if told is not None:
        RESULT.print(
            f"the rotation head tells {100 * told:.0f}% of quarter turns (chance: 25%)",
            soft_wrap=True,
        )


@app.command()
def retire(
    config: Config,
    reason: Annotated[str, typer.Option("--reason", help="Labs are told.")],
    as_json: AsJson = False,
) -> None:
    """Take the heads back; labs with recipe `compatible` then wait for the next ones."""
    with needs_coordinator("coordinator heads retire"):
        from rootstock.coordinator.config import CoordinatorConfig
    from rootstock.common.config import load

    with operations(load(config, CoordinatorConfig)) as (operator, running):
        retired = operator.retire_heads(reason)
    if as_json:
        print_json({"retired": retired.number, "coordinator_runs": running})
        return
    RESULT.print(f"heads number {retired.number} ({retired.origin}) are retired", soft_wrap=True)


@app.command()
def show(config: Config, as_json: AsJson = False) -> None:
    """Show the heads that are published."""
    with needs_coordinator("coordinator heads show"):
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.paths import StatePaths
        from rootstock.coordinator.plan.heads import HeadsFile
    from rootstock.common.config import load

    published = HeadsFile(StatePaths(load(config, CoordinatorConfig)).heads).current()
    if as_json:
        print_json({"heads": None if published is None else _told(published)})
        return
    if published is None:
        RESULT.print("no heads are published: `rootstock coordinator heads publish`")
        return
    _print(published)


def _told(heads: Heads) -> dict[str, object]:
    return {"digest": heads.content_digest(), **heads.model_dump(mode="json")}


def _print(heads: Heads) -> None:
    rotation = ["rotation"] if heads.rotation is not None else []
    names = ", ".join([*sorted(heads.task_modules), *rotation])
    RESULT.print(f"heads number {heads.number}, from {heads.origin}: {names}", soft_wrap=True)
