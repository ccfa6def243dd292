"""Ray's temporary folder: one a coordinator, so that two share neither sockets nor clean-up.

It lies in TMPDIR, since the path of a socket may have only some hundred characters. A folder whose
coordinator was killed is deleted by the next one, as it starts or ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rootstock.common.errors import StorageError
from rootstock.common.files import storage_errors

FOLDER_PREFIX = "rootstock-ray-"

MARK = "ROOTSTOCK_RAY_FOLDER"
"""Variable in the environment of processes that write to a folder, with its path."""

ENDING_SECONDS = 5.0
"""How long processes that were killed may take to end."""

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
        _delete(folder)
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


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark the processes that are started meanwhile, and theirs, as writing to a folder."""
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        del os.environ[MARK]


def _delete(folder: Path) -> None:
    """End the processes that write to a folder and delete it, its lock last.

    A worker of Ray that has just been started makes the whole folder anew. While the lock is
    there, what cannot be deleted is found again.
    """
    until = time.monotonic() + ENDING_SECONDS
    while True:
        writers = _kill_marked(folder)
        if not writers and not folder.exists():
            return
        for path in folder.glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                with suppress(OSError):
                    path.unlink()
        lock = folder / _LOCK
        if not writers:
            with suppress(OSError):  # not empty
                lock.unlink()
                folder.rmdir()
                return
            with suppress(OSError):
                lock.touch(0o600)
        if time.monotonic() >= until:
            return
        time.sleep(0.05)


def _kill_marked(folder: Path) -> bool:
    """Kill the processes that are marked as writing to a folder; return whether there are any."""
    mark = f"{MARK}={folder}\0".encode()
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # has ended, or is another user's
            if mark in (process / "environ").read_bytes():
                found = True
                os.kill(int(process.name), signal.SIGKILL)
    return found


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
