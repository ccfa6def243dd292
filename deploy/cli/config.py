"""``rootstock config``: what configuration files may say."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rootstock.common.documents import Document
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.output import print_json
from rootstock.site_agent.config import SiteConfig

app = typer.Typer(help="What configuration files may say.", no_args_is_help=True)


class File(StrEnum):
    """A file that people write; FEDERATION.toml has tables of these two."""

    SITE = "site"
    COORDINATOR = "coordinator"


_KINDS: dict[File, type[Document]] = {
    File.SITE: SiteConfig,
    File.COORDINATOR: CoordinatorConfig,
}


@app.callback()
def _group() -> None:
    """Keep `schema` a command of its own while it is the only one."""


@app.command()
def schema(file: Annotated[File, typer.Argument(help="Whose: site.toml, and so on.")]) -> None:
    """Print a file's JSON schema, by which editors check and complete it."""
    print_json(_KINDS[file].model_json_schema())
