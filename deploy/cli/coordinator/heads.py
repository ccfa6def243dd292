"""``rootstock coordinator heads``: what labs with recipe `compatible` train below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootstock.common.config import load
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.cli.access import number_of, operations
from rootstock.deploy.cli.extras import CoordinatorGroup
from rootstock.deploy.cli.options import AsJson, Config, GreyRange, Seed, Steps
from rootstock.deploy.output import note, print_result

if TYPE_CHECKING:
    from rootstock.common.protocol import Heads

app = typer.Typer(
    help="Auxiliary heads that labs train below, so that they fit before any adapter.",
    no_args_is_help=True,
    cls=CoordinatorGroup,
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
    grey_range: GreyRange = None,
    steps: Steps = 400,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Publish heads, in place of those there are, and tell every lab.

    Labs that have shipped stay as they are; those that train or wait take the new ones.
    """
    from rootstock.common.compatible.rotation import RotationSettings
    from rootstock.coordinator.merges.pending import published_plan
    from rootstock.coordinator.net.compose import category_module_of
    from rootstock.coordinator.net.reader import NetReader
    from rootstock.coordinator.plan import heads

    settings = load(config, CoordinatorConfig)
    plan = published_plan(settings)
    origin, modules = "initial weights", dict(plan.initial_task_modules)
    rotation, accuracy = None, None
    with NetReader.open(settings) as net:
        if source == "net" or images is not None:
            number = number_of(net)
            tree = net.tree(number)
        if source == "net":
            origin, modules = f"net version {number}", heads.heads_of_net(tree, plan)
        if images is not None:
            name = category or heads.founder_of(tree, plan)
            module = category_module_of(tree, name)
            learning = RotationSettings(steps=steps, seed=seed)
            rotation, accuracy = heads.learn_rotation(
                net.store, plan, module, images, learning, note, grey_range
            )
            origin += f", rotation above {name}"
    with operations(settings) as (operator, running):
        published = operator.publish_heads(origin, modules, rotation)
    lines = [_line(published)]
    if accuracy is not None:
        lines.append(f"the rotation head tells {accuracy:.0%} of quarter turns (chance: 25%)")
    print_result(
        {**_as_json(published), "rotation_told": accuracy, "coordinator_runs": running},
        *lines,
        as_json=as_json,
    )


@app.command()
def retire(
    config: Config,
    reason: Annotated[str, typer.Option("--reason", help="Sent to the labs.")],
    as_json: AsJson = False,
) -> None:
    """Take the heads back; labs with recipe `compatible` then wait for the next ones."""
    with operations(load(config, CoordinatorConfig)) as (operator, running):
        retired = operator.retire_heads(reason)
    print_result(
        {"retired": retired.number, "coordinator_runs": running},
        f"heads number {retired.number} ({retired.origin}) are retired",
        as_json=as_json,
    )


@app.command()
def show(config: Config, as_json: AsJson = False) -> None:
    """Show the heads that are published."""
    from rootstock.coordinator.paths import StatePaths
    from rootstock.coordinator.plan.heads import HeadsFile

    published = HeadsFile(StatePaths(load(config, CoordinatorConfig)).heads).current()
    if published is None:
        line = "no heads are published: `rootstock coordinator heads publish`"
        print_result({"heads": None}, line, as_json=as_json)
    else:
        print_result({"heads": _as_json(published)}, _line(published), as_json=as_json)


def _as_json(heads: Heads) -> dict[str, object]:
    return {"digest": heads.content_digest(), **heads.model_dump(mode="json")}


def _line(heads: Heads) -> str:
    rotation = ["rotation"] if heads.rotation is not None else []
    names = ", ".join([*sorted(heads.task_modules), *rotation])
    return f"heads number {heads.number}, from {heads.origin}: {names}"
