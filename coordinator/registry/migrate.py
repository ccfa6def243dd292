"""Brings a database to the present schema; run at each start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection

from common.errors import ConfigurationError

SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for this package's migrations."""
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
    try:
        command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the database {connection.engine.url.render_as_string(hide_password=True)} has a "
            f"schema that this Rootstock does not know ({error}); install the version that "
            "wrote it, or a newer one"
        ) from error
