"""Small things that an agent remembers between runs: its cursor, and that it runs alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from common.errors import ConflictError, SchemaError
from common.files import storage_errors, write_bytes
from common.model import Document


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


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the state folder: two agents in one would write over each other's checkpoints.

    Raises
    ------
    ConflictError
        If another process holds it. The hold ends with the process, also by ``kill -9``.
    """
    path = state / "lock"
    with storage_errors(path):
        state.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"{state}: another agent runs in this state folder; stop it, or give this one "
                "another folder"
            ) from error
        yield
