"""Durable files: written aside, flushed to the disk, renamed; a bad disk gets a clear error."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shlex
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from rootstock.common.errors import ConfigurationError, ConflictError, SchemaError, StorageError

READ_BYTES = 1 << 20
"""Bytes a read while hashing: large enough to keep hashlib busy, small enough to stay in cache."""

PRIVATE_UMASK = 0o077
"""The umask of every process of ours: what it makes is read by its user alone."""

_log = logging.getLogger(__name__)

_LOCK = "lock"
"""The file of a state folder that says whose process runs in it."""
_IDENTITY = "identity"
"""Folder of a state folder: its keys."""
_LOOKS = 5
_LOOK_SECONDS = 0.02

_REMEDIES = {
    errno.ENOSPC: "free space on that disk, or move the folder to a larger one, and start again",
    errno.EDQUOT: "raise the quota or free space under it, and start again",
    errno.EFBIG: "raise the file size limit (ulimit -f) or use another file system",
    errno.EROFS: "mount that disk writable, or name a folder on another one",
    errno.EACCES: "give this user the right to it, or name another folder",
    errno.EPERM: "give this user the right to it, or name another folder",
    errno.EIO: "the disk reports a fault: check it, or move the folder to another one",
    errno.ENAMETOOLONG: "the path is too long: name a shorter one",
    errno.ELOOP: "links there lead in a circle: name the folder itself",
    errno.ENOTDIR: "a file stands where a folder is needed: move it away, or name another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a full, read-only or broken disk into `StorageError`.

    Other errors (a missing file, say) pass as they are: they are the caller's to explain.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        raise StorageError(f"{path}: {os.strerror(error.errno or 0)}; {remedy}") from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def aside(path: Path, *, mode: int = 0o644) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file beside `path`; it is flushed at the end and never outlives the block.

    Yields where the bytes are, and the open file. The caller renames or links it into place after
    its own flush; see `replacing` for the usual way.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.aside")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield temporary, file
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write `path` as a whole or not at all: aside, flush, rename, flush the folder."""
    with aside(path, mode=mode) as (temporary, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a small file durably."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of a file left beside it; the caller is its only writer."""
    with storage_errors(path):
        for left in path.parent.glob(f".{path.name}.*.aside"):
            left.unlink(missing_ok=True)


def read_capped(path: Path, limit: int, *, what: str) -> bytes:
    """Read a small file; one of more than `limit` bytes is refused, as being no such thing."""
    with storage_errors(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SchemaError(f"{path}: has more than {limit} bytes; it is no {what}")
    return data


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_one(
    folder: Path, who: str, *, remedy: str = "stop it, or give this one another folder with `state`"
) -> Iterator[None]:
    """Lock a state folder, made if missing, for this process.

    The lock ends with it, also by ``kill -9``. `who` is how the error names what runs there
    ("agent", "coordinator"), `remedy` what to do about it. StorageError if the folder cannot be
    made or written. Keys are in it: it is closed to other users, see `make_private`.
    """
    path = folder / _LOCK
    with storage_errors(path):
        _require_closable(folder)
        file = path.open("a+")
    with file:
        if not _locked(file, fcntl.LOCK_EX):
            raise ConflictError(
                f"{path}: another {who} (process {_owner(file) or 'unknown'}) runs in this state "
                f"folder; {remedy}"
            )
        file.seek(0)
        if (said := file.read(20)) and not said.isdecimal():
            raise ConflictError(f"{path}: is a file of something else; name another folder")
        _close_to_others(folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_owner(folder: Path) -> int | None:
    """Return the process that has a state folder's lock; None if nobody has it.

    0 if it cannot be told who has it. Nothing is made or changed.
    """
    path = folder / _LOCK
    with storage_errors(path), suppress(FileNotFoundError), path.open() as file:
        return None if _locked(file, fcntl.LOCK_SH) else _owner(file)
    return None


def make_private(folder: Path, own: Collection[str] = ()) -> None:
    """Make a folder that no other user can enter; an empty one, or one of ours, is closed to them.

    `own` are names of files that show that it is ours, besides those of a state folder. That it is
    closed is logged as a warning. ConfigurationError if others can enter it and it is everyone's,
    as /tmp is, another user's, or has files of something else, which others may need.
    """
    _require_closable(folder, own)
    _close_to_others(folder)


def _require_closable(folder: Path, own: Collection[str] = ()) -> None:
    """Make a folder; ConfigurationError if others can enter it and may have to."""
    make_folder(folder, mode=0o700)
    if not (mode := _mode_for_others(folder)):
        return
    if mode & stat.S_ISVTX:
        raise ConfigurationError(
            f"{folder}: is everyone's (mode {mode:04o}), and keys and images are to lie there; "
            "name a folder of its own"
        )
    with storage_errors(folder):
        if os.geteuid() not in (0, folder.stat().st_uid):
            raise ConfigurationError(
                f"{folder}: other users can enter it (mode {mode:04o}), and it is another user's "
                "to close; name a folder of this user's"
            )
        names = sorted(each.name for each in folder.iterdir())
        ours = {_IDENTITY, *own} & set(names) or _is_our_lock(folder / _LOCK)
    if names and not ours:
        raise ConfigurationError(
            f"{folder}: other users can enter it (mode {mode:04o}), and what is in it is of "
            f"something else ({names[0]}); name a folder of its own, or close it yourself: "
            f"chmod 700 {shlex.quote(str(folder))}"
        )


def _is_our_lock(path: Path) -> bool:
    try:
        return read_capped(path, 20, what="lock").isdigit()
    except (FileNotFoundError, IsADirectoryError, SchemaError):
        return False


def _close_to_others(folder: Path) -> None:
    if not (mode := _mode_for_others(folder)):
        return
    with storage_errors(folder):
        folder.chmod(0o700)
    if left := _mode_for_others(folder):
        _log.warning(
            "%s can be entered by other users (mode %04o), and its file system keeps no other "
            "mode; name a folder on another one, or mount that one for this user alone",
            folder,
            left,
        )
        return
    _log.warning(
        "%s could be entered by other users (mode %04o); it is this user's alone now", folder, mode
    )


def _mode_for_others(folder: Path) -> int:
    """Return the mode of a folder that other users can enter, list or change; 0: they cannot."""
    with storage_errors(folder):
        mode = stat.S_IMODE(folder.stat().st_mode)
    return mode if mode & 0o077 else 0


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those around it where they are missing; StorageError if that fails."""
    with storage_errors(folder):
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "") from None
        except FileNotFoundError as error:  # /proc, for example, takes no folders
            raise StorageError(f"{folder}: cannot be made; name a folder on a disk") from error


def _locked(file: TextIO, kind: int) -> bool:
    """Take a file's lock, which ends when the file is closed; say whether that was possible.

    One who only looks whether it is taken lets go at once, and is waited for.
    """
    for _ in range(_LOOKS):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_SECONDS)
        else:
            return True
    return False


def _owner(file: TextIO) -> int:
    file.seek(0)
    said = file.read(20)
    return int(said) if said.isdecimal() else 0
