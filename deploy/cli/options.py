"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MACHINE = Path("/etc/rootstock")
"""Where a configuration is looked for that is not in the current folder."""


def _seen(path: Path) -> bool:
    """Return whether this user sees a file: in a folder of another's he sees none."""
    try:
        return path.exists()
    except OSError:
        return False


def _named(name: str) -> Any:
    """Return an option for the file of that name, found where nothing else is said."""

    def found() -> Path:
        here, there = Path(name), MACHINE / name
        return here if _seen(here) or not _seen(there) else there

    return typer.Option(
        "--config",
        "-c",
        default_factory=found,
        show_default=f"./{name}, or else {MACHINE / name}",
        help=name,
    )


Config = Annotated[Path, _named("coordinator.toml")]
SiteConfigFile = Annotated[Path, _named("site.toml")]
Version = Annotated[int | None, typer.Option("--version", "-v", help="Default: the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the history, for people.")]
GreyRange = Annotated[
    tuple[float, float] | None,
    typer.Option("--grey-range", help="Black and white, in pictures of more than 8 bits of grey."),
]
Steps = Annotated[int, typer.Option(min=1, max=1_000_000)]
Seed = Annotated[int, typer.Option(min=0)]
