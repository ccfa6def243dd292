"""What the commands of ``rootstock net`` have in common: their options, and how a net is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.common.errors import NotFoundError
from rootstock.deploy.cli.extras import needs_coordinator

if TYPE_CHECKING:
    from rootstock.coordinator.config import StateConfig
    from rootstock.coordinator.net.reader import NetReader

Config = Annotated[Path, typer.Option("--config", "-c", help="coordinator.toml")]
Version = Annotated[int | None, typer.Option("--version", "-v", help="Default: the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def open_net(config: Path, command: str) -> tuple[StateConfig, NetReader]:
    """Open the net of a coordinator.toml for reading; no server need run.

    Raises
    ------
    MissingExtraError
        If the coordinator extra is not installed.
    ConfigurationError
        If the file cannot be read, or does not say where the net is.
    NotFoundError
        If no coordinator has run there.
    """
    with needs_coordinator(f"net {command}"):
        from rootstock.coordinator.config import StateConfig
        from rootstock.coordinator.net.reader import NetReader
    from rootstock.common.config import load

    where = load(config, StateConfig)
    return where, NetReader.open(where)


def number_of(view: NetReader, wanted: int | None) -> int:
    """Return the wanted version's number, or the newest's.

    Raises
    ------
    NotFoundError
        If there is none yet.
    """
    number = wanted if wanted is not None else view.head
    if number is None:
        raise NotFoundError("the net is not founded yet: no teacher net has been merged")
    return number
