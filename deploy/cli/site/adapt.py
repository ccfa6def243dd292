"""``rootstock site adapt``: the lab's net for images of another domain that nobody labelled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.config import check, load
from rootstock.deploy.cli.options import AsJson, Seed, SiteConfigFile, Steps
from rootstock.deploy.output import RESULT, cut, note, print_json, print_plain, progress, retrying
from rootstock.site_agent.config import SiteConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootstock.site_agent.transfer.adapt_card import AdaptedCard

_HARDLY = 40.0
"""Percent of its own images' turns below which a net was clearly not trained below the head."""

_NAME = 32
"""Width of the report's first column: 80 with its four others."""


def adapt(
    config: SiteConfigFile,
    images: Annotated[
        Path, typer.Option("--images", help="Folder of the new domain's images, at any depth.")
    ],
    labelled: Annotated[
        Path | None,
        typer.Option(help="Folder of its yes/… and no/… images: errors on them are reported."),
    ] = None,
    steps: Steps = 300,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-4,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: one in the state folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Adapt the lab's category module to images of another domain by their rotations alone.

    The coordinator's rotation head and the lab's task modules stay as they are. The agent may run
    meanwhile; nothing is shipped.
    """
    settings = load(config, SiteConfig)
    from rootstock.common.compatible.adaptation import AdaptationSettings
    from rootstock.site_agent.transfer.adapt import adapt_own
    from rootstock.site_agent.transfer.adapt_card import require_free, write
    from rootstock.site_agent.transfer.snapshot import snapshot

    adaptation = check(
        {"steps": steps, "learning_rate": learning_rate, "seed": seed},
        AdaptationSettings,
        source="options",
    )
    if out is not None:
        require_free(out)
    with snapshot(settings, retrying, note) as lab, progress("adapts") as on_step:
        adapted = adapt_own(lab, images, labelled, adaptation, on_step)
    folder, card = write(adapted, settings.state / "adapted", out)
    if as_json:
        print_json({"out": str(folder), **card.model_dump(mode="json")})
        return
    print_plain(*lines(card))
    RESULT.print(f"written to {folder}", soft_wrap=True)
    if card.rotations.own.accuracy < _HARDLY:
        note(
            f"the rotation head tells {card.rotations.own.accuracy:.0f}% of turns of the lab's own "
            "images (chance: 25%). The net was not trained below it, so what satisfies the head "
            "need not suit its task modules: train with recipe = 'compatible'"
        )


def lines(card: AdaptedCard) -> Iterator[str]:
    """Yield the report as people read it, within 80 columns."""
    yield (
        f"{card.category}: {card.images} images, {card.judged_on} of them set apart; "
        f"f of step {card.step} of {card.settings.steps} is kept"
    )
    yield ""
    yield _row("", ["as it is", "BatchNorm", "adapted", "own images"])
    turns = card.rotations
    accuracies = [turns.source, turns.re_estimated, turns.adapted, turns.own]
    yield _row("turns recognised, %", [f"{each.accuracy:.1f}" for each in accuracies])
    for task, error in sorted(card.errors.items()):
        errors = [error.source, error.re_estimated, error.adapted]
        yield _row(f"error, {task}, %", [f"{error:.1f}" for error in errors])
    yield ""
    if card.batch_norm_layers == 0:
        yield "The net has no BatchNorm: with statistics anew it is the net as it is."
    for task, percent in sorted(card.changed_answers.items()):
        yield f"Adapting changed {percent:.1f}% of the answers about these images ({task})."
    if card.labelled:
        yield f"Errors: percent of {card.labelled} labelled images, which decided nothing."


def _row(name: str, values: list[str]) -> str:
    return f"{cut(name, _NAME):<{_NAME}}" + "".join(f"{value:>12}" for value in values)
