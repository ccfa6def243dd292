"""``rootstock coordinator splits``: where a net can be split, before a plan names one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.spec import Setting
from rootstock.deploy.cli.options import AsJson
from rootstock.deploy.output import print_result, table

_COLUMNS = ("split", "x = f(I)", "below 0", "f", "g")
_LEGEND = "f, g: parameters; below 0: whether x may be (adapters then keep its sign)."
_HINT = "a key and its value, as in `settings` of plan.architecture: width=16"


def splits(
    name: Annotated[
        str, typer.Argument(help="small-vgg, …, torchvision:mobilenet_v3_small, timm:convnext_atto")
    ],
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=f"Repeat it: {_HINT}.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List where a net can be split, and how large f, g and what is between them would be.

    Of torchvision and timm any net that is a chain of blocks can be had; it is built and tried.
    """
    from rootstock.common.nets.architectures import split_points

    points = split_points(name, dict(_setting(text) for text in setting or ()))
    rows = (
        (
            point.name,
            "×".join(map(str, point.shape)),
            "yes" if point.signed else "no",
            f"{point.below:,}",
            f"{point.above:,}",
        )
        for point in points
    )
    value = {"architecture": name, "splits": [point._asdict() for point in points]}
    shown = table(f"Splits of {name}", _COLUMNS, rows, whole=_COLUMNS)
    print_result(value, shown, _LEGEND, as_json=as_json)


def _setting(text: str) -> tuple[str, Setting]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"--set {text}: give {_HINT}")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float | str) else value
