"""The store in a local folder: ``blobs/ab/abcd…``, ``refs/<name>``, ``<area>/blobs/ab/abcd…``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rootstock.common.artifacts.store import (
    StoredBlob,
    check_digest,
    check_ref,
    no_blob,
    require_digest,
    require_file,
    require_small,
)
from rootstock.common.errors import StorageError
from rootstock.common.files import (
    READ_BYTES,
    aside,
    file_digest,
    make_private,
    storage_errors,
    sync_folder,
    write_bytes,
)

_BLOB_MODE = 0o400  # a blob never changes: not even by accident


class LocalStore:
    """A `BlobStore` in a folder, for one machine or a shared file system.

    A blob's age is that of its file. Whoever renews one holds the file `discarding` shared, whoever
    discards one holds it alone: none is deleted between the look at its age and the deletion.

    A store that held blobs and whose folder is not there any more, as when a disk is not mounted,
    is a StorageError: nothing is taken for lost, and nothing is written where the disk was.
    """

    def __init__(
        self, root: Path, *, began: bool = False, within: LocalStore | None = None
    ) -> None:
        """`began`: it is known to hold blobs; `within` is the store that this is an area of."""
        self._root = root
        self._blobs = root / "blobs"
        self._refs = root / "refs"
        self._whole = within or self
        self._began = began or self._blobs.is_dir()

    def make_private(self) -> None:
        """Close a folder that is there to other users; see `files.make_private`."""
        self._missing()
        if self._root.is_dir():
            make_private(self._root, own=(self._blobs.name, self._refs.name))

    def has(self, digest: str) -> bool:
        return self._blob(digest).is_file() or self._missing()

    def size(self, digest: str) -> int:
        try:
            return self.local_path(digest).stat().st_size
        except FileNotFoundError as error:  # collected between two looks
            raise no_blob(digest, str(self._root)) from error

    def put_file(
        self, path: Path, digest: str, *, verified: bool = False, move: bool = False
    ) -> None:
        """Store a file; a move within one file system copies no byte."""
        target = self._blob(digest)
        if not self._there(digest):
            require_file(path, digest)
            if not (move and self._take(path, target, digest, verified)):
                self._copy(path, target, digest, verified)
        if move:
            path.unlink(missing_ok=True)

    def put_bytes(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        target = self._blob(digest)
        if not self._there(digest):
            self._make_parent(target)
            write_bytes(target, data, mode=_BLOB_MODE)
        return digest

    def renew(self, digest: str) -> bool:
        path = self._blob(digest)
        if not path.is_file():
            return self._missing()
        with storage_errors(path), self._discarding(fcntl.LOCK_SH):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def read_bytes(self, digest: str, limit: int) -> bytes:
        path = self.local_path(digest)
        with storage_errors(path), path.open("rb") as file:
            data = file.read(limit + 1)
        require_small(data, digest, limit)
        if hashlib.sha256(data).hexdigest() != digest:
            raise StorageError(
                f"{path}: the bytes do not match the name; the disk lost or changed them: "
                "restore the file from a backup"
            )
        return data

    def local_path(self, digest: str) -> Path:
        path = self._blob(digest)
        if not path.is_file():
            self._missing()
            raise no_blob(digest, str(self._root))
        return path

    def delete(self, digest: str) -> None:
        path = self._blob(digest)
        with storage_errors(path), suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def discard(self, digest: str, before: float) -> bool:
        path = self._blob(digest)
        if not path.is_file():
            return False
        with storage_errors(path), self._discarding(fcntl.LOCK_EX):
            try:
                if path.stat().st_mtime >= before:
                    return False
            except FileNotFoundError:  # another collector was faster
                return False
            path.unlink()
            sync_folder(path.parent)
        return True

    def blobs(self) -> Iterator[StoredBlob]:
        if not self._blobs.is_dir():
            return
        for folder in sorted(self._blobs.iterdir()):
            for path in sorted(folder.iterdir()):
                if path.name.startswith("."):  # a file being written aside
                    continue
                try:
                    found = path.stat()
                except FileNotFoundError:  # deleted since the folder was listed
                    continue
                yield StoredBlob(path.name, found.st_size, found.st_mtime)

    def put_ref(self, name: str, digest: str) -> None:
        self._missing()
        write_bytes(self._ref(name), check_digest(digest).encode())

    def get_ref(self, name: str) -> str | None:
        path = self._ref(name)
        try:
            with storage_errors(path):
                return check_digest(path.read_text(encoding="ascii").strip())
        except (FileNotFoundError, IsADirectoryError):
            return None

    def refs(self, under: str) -> Iterator[str]:
        for path in sorted(self._ref(under).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield str(path.relative_to(self._refs))

    def area(self, name: str) -> LocalStore:
        return LocalStore(self._root / check_ref(name), within=self._whole)

    def areas(self, under: str) -> Iterator[str]:
        folder = self._root / check_ref(under)
        if folder.is_dir():
            yield from sorted(path.name for path in folder.iterdir())

    def drop(self, area: str) -> None:
        folder = self._root / check_ref(area)
        with storage_errors(folder):
            if folder.is_dir():
                shutil.rmtree(folder)
                sync_folder(folder.parent)

    def tidy(self, before: float) -> None:
        for path in self._root.rglob(".*.aside"):
            with storage_errors(path), suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _missing(self) -> bool:
        """Return False, for what is missing in a store that is there; StorageError if it is not."""
        whole = self._whole
        if whole._blobs.is_dir():
            whole._began = True
        elif whole._began:
            raise StorageError(
                f"{whole._root}: the store's folder is not there; mount its disk, or restore it "
                "from a backup"
            )
        return False

    def _there(self, digest: str) -> bool:
        """Say whether a blob need not be written; another user's, whose age stays, is replaced."""
        if not self._blob(digest).is_file():
            return self._missing()
        try:
            return self.renew(digest)
        except StorageError:
            return False

    @contextmanager
    def _discarding(self, operation: int) -> Iterator[None]:
        with (self._root / "discarding").open("a") as file:
            fcntl.flock(file, operation)
            yield

    def _blob(self, digest: str) -> Path:
        # 256 folders keep each one small enough to list.
        return self._blobs / check_digest(digest)[:2] / digest

    def _ref(self, name: str) -> Path:
        return self._refs / check_ref(name)

    def _make_parent(self, target: Path) -> None:
        with storage_errors(target):
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                sync_folder(target.parent.parent)
        self._began = True

    def _take(self, path: Path, target: Path, digest: str, verified: bool) -> bool:
        """Link a file into the store; False if it is on another file system."""
        self._make_parent(target)
        if path.stat().st_dev != target.parent.stat().st_dev:
            return False
        if not verified:
            require_digest(file_digest(path), digest, path)
        with storage_errors(target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.chmod(_BLOB_MODE)
            os.utime(path)  # its age as a blob begins now, however long it took to arrive
            path.replace(target)
            sync_folder(target.parent)
        return True

    def _copy(self, path: Path, target: Path, digest: str, verified: bool) -> None:
        self._make_parent(target)
        with path.open("rb") as source, aside(target, mode=_BLOB_MODE) as (temporary, file):
            if verified:
                shutil.copyfileobj(source, file, READ_BYTES)
            else:
                require_digest(_copy_hashing(source, file), digest, path)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
            sync_folder(target.parent)


def _copy_hashing(source: BinaryIO, target: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := source.read(READ_BYTES):
        digest.update(data)
        target.write(data)
    return digest.hexdigest()
