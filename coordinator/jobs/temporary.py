"""Ray's temporary folder: one a coordinator, so that two share neither sockets nor clean-up.

It lies in TMPDIR, since the path of a socket may have only some hundred characters. A folder whose
coordinator was killed is deleted by the next one to start.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.common.errors import StorageError
from rootstock.common.files import storage_errors

FOLDER_PREFIX = "rootstock-ray-"

_LOCK = "lock"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder of this process's own; it is deleted at the end, or by a later process.

    StorageError if there is no folder for temporary files, or no space in it.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise StorageError(f"{error}; set TMPDIR to a folder that can be written") from error
    with storage_errors(parent):
        remove_stale(parent)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
            handle = _locked(folder, make=True)
            if handle is not None:
                break  # else a process that deletes what is stale was faster
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_stale(parent: Path) -> None:
    """Delete the folders of processes that have ended without doing so."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        if folder.is_symlink():
            continue
        handle = _locked(folder, make=False)
        if handle is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _locked(folder: Path, *, make: bool) -> int | None:
    """Take the lock in a folder; None if it has none, if another has it, or if it is not ours.

    The lock ends with the process, however that ends.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    try:
        handle = os.open(folder / _LOCK, flags, 0o600)
    except OSError:
        if make:
            raise
        return None  # there is none, or another user's
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_uid == os.getuid() and (folder / _LOCK).exists():
            return handle
    except BlockingIOError:
        pass
    os.close(handle)
    return None
