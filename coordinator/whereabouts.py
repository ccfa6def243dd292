"""What of coordinator.toml says where a net is.

Enough to read it: what is learned with, which needs torch to check, is not looked at.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from rootstock.common.documents import Document
from rootstock.common.nets.spec import Name


class StateConfig(Document):
    """The net's name and where its versions and blobs are kept."""

    model_config = ConfigDict(extra="ignore")

    net: Name
    state: Path
    """Folder of the database, keys, partial uploads and the operator's token."""
    database: str | None = None
    """SQLAlchemy URL; None is SQLite in the state folder."""
    artifacts: str | None = None
    """Folder or s3://bucket/prefix; None is a folder in the state folder."""
