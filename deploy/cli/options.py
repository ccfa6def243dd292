"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", "-c", help="coordinator.toml")]
SiteConfigFile = Annotated[Path, typer.Option("--config", "-c", help="site.toml")]
Version = Annotated[int | None, typer.Option("--version", "-v", help="Default: the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the history, for people.")]
GreyRange = Annotated[
    tuple[float, float] | None,
    typer.Option("--grey-range", help="Black and white, in pictures of more than 8 bits of grey."),
]
Steps = Annotated[int, typer.Option(min=1, max=1_000_000)]
Seed = Annotated[int, typer.Option(min=0)]
