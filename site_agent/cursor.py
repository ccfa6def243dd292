"""What an agent remembers of the watch stream between runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError
from rootstock.common.files import storage_errors, write_bytes


class Cursor(Document):
    """The last event of the watch stream that was dealt with."""

    cursor: int = Field(ge=0, lt=1 << 64)


def read_cursor(path: Path) -> int:
    """Return the saved cursor, or 0: every event is then seen again, which costs no more than time.

    Raises
    ------
    SchemaError
        If the file is damaged; names the remedy.
    """
    if not path.exists():
        return 0
    with storage_errors(path):
        data = path.read_bytes()
    try:
        return Cursor.parse(data, what=str(path)).cursor
    except SchemaError as error:
        raise SchemaError(
            f"{error}; remove the file, and all events are looked at again"
        ) from error


def write_cursor(path: Path, cursor: int) -> None:
    """Save the cursor durably."""
    write_bytes(path, Cursor(cursor=cursor).canonical())
