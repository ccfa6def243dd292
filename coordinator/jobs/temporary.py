"""Ray's temporary folder: one a coordinator, so that two share neither sockets nor clean-up.

It lies in TMPDIR, since the path of a socket may have only some hundred characters. A folder whose
coordinator was killed is deleted by the next one, as it starts or ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock.common.errors import StorageError
from rootstock.common.files import storage_errors

FOLDER_PREFIX = "rootstock-ray-"

ENDING_SECONDS = 5.0
"""How long Ray's workers, which end when they find their raylet gone, may write files anew."""

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
        _delete(folder, ENDING_SECONDS)
        os.close(handle)
        remove_stale(parent)  # of those before it, what was still written to as this one started


def remove_stale(parent: Path) -> None:
    """Delete the folders of processes that have ended without doing so."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        if folder.is_symlink():
            continue
        handle = _locked(folder, make=False)
        if handle is not None:
            _delete(folder)
            os.close(handle)


def _delete(folder: Path, seconds: float = 0.0) -> None:
    """Delete a folder, its lock last: while that is there, it is found again.

    What is written to it meanwhile is deleted, too, for so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        for path in folder.glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)
        lock = folder / _LOCK
        with suppress(OSError):  # not empty: written to once more
            lock.unlink()
            folder.rmdir()
            return
        with suppress(OSError):
            lock.touch(0o600)
        if time.monotonic() >= until:
            return
        time.sleep(0.05)


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
