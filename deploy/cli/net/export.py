"""``rootstock net export``: take a composition away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.options import Config, GreyRange, Version
from rootstock.deploy.output import print_json


def export(
    config: Config,
    category: Annotated[str, typer.Option(help="Category module to compose.")],
    task: Annotated[str, typer.Option(help="Task module to compose.")],
    out: Annotated[
        Path, typer.Option(help="File to write: NAME.safetensors, NAME.pt2 or NAME.onnx.")
    ],
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="safetensors, torch or onnx; default: by the suffix."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Picture to check torch or onnx on, beside random ones; repeatable."),
    ] = None,
    grey_range: GreyRange = None,
    version: Version = None,
) -> None:
    """Write a composed net for an application, with cards: OUT.card.json and OUT.card.md.

    Prints the card without the list of tensors. The file takes any number of images at once, and
    holds the calibration.
    """
    from rootstock.common.weights.card import NetSource
    from rootstock.coordinator.export.exporting import export_composed

    where, opened = open_net(config)
    with opened as net:
        number = number_of(net, version)
        card = export_composed(
            net.tree(number),
            net.store,
            category,
            task,
            out,
            format_name=format_name,
            source=NetSource(net=where.net, version=number),
            images=image or (),
            grey_range=grey_range,
        )
    print_json(card.model_dump(mode="json", exclude={"blob": {"tensors"}}))
