"""The schema's revisions: a coordinator that starts brings its database to the newest."""

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


def migrate(connection: Connection) -> str | None:
    """Apply what is missing, within the caller's transaction; refuse a newer Rootstock's.

    Returns the revision of before, None of a new database.
    """
    revision = _revision(connection)
    if revision is not None and revision not in _revisions():
        raise _other(connection, revision)
    if revision != newest():
        from alembic import command

        command.upgrade(alembic_config(connection), "head")
    return revision


def require_present(connection: Connection) -> None:
    """Refuse a database of another schema revision than this package's newest."""
    revision = _revision(connection)
    if revision != newest():
        raise _other(connection, revision)


def _other(connection: Connection, revision: str | None) -> ConfigurationError:
    where = connection.engine.url.render_as_string(hide_password=True)
    if revision is None or revision in _revisions():
        remedy = (
            "start this version's coordinator once (`rootstock coordinator run`), which brings it "
            "to the present one, or use the version that wrote it"
        )
    else:
        remedy = "install the version that wrote it, or a newer one"
    return ConfigurationError(
        f"the database {where} has schema revision {revision!r}, this Rootstock has "
        f"{newest()!r}; {remedy}"
    )


def newest() -> str:
    """Return the last of this package's revisions: their files are numbered."""
    return max(_revisions())


def _revisions() -> set[str]:
    return {path.name[:4] for path in (SCRIPTS / "versions").glob("[0-9]*.py")}


def _revision(connection: Connection) -> str | None:
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
    return found.scalar()
