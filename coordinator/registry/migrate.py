"""Brings a database to the present schema; run at each start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.engine import Connection

from rootstock.common.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this package's migrations."""
    from alembic.config import Config  # a third of a second, which a command line would wait for

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(connection: Connection) -> None:
    """Apply what is missing, within the caller's transaction.

    Raises
    ------
    ConfigurationError
        If the database was written by a newer Rootstock.
    """
    if _revision(connection) == newest():
        return
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the database {connection.engine.url.render_as_string(hide_password=True)} has a "
            f"schema that this Rootstock does not know ({error}); install the version that "
            "wrote it, or a newer one"
        ) from error


def newest() -> str:
    """Return the last of this package's revisions: their files are numbered."""
    return max(path.name[:4] for path in (SCRIPTS / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
    return found.scalar()
