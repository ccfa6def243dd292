"""The content-addressed store as the rooms see it: blobs by SHA-256, and a few mutable names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from rootstock.common.errors import IntegrityError, LimitError, NotFoundError, SchemaError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){0,7}")


class StoredBlob(NamedTuple):
    """A blob in a list: its size in bytes, and when it was put last, in seconds since the epoch."""

    digest: str
    size: int
    put_at: float


class BlobStore(Protocol):
    """Where blobs, trees and commits are kept.

    A blob never changes and has one name, its SHA-256 in hex. Putting one that is there costs
    nothing but begins its age anew. When a put returns, what was put survives a power cut. Methods
    raise `SchemaError` for a malformed digest or name, `NotFoundError` for one that nothing has,
    `StorageError` for a full, read-only or lying disk, `UnreachableError` for a store that does not
    answer.
    """

    def has(self, digest: str) -> bool:
        """Say whether the blob is there."""

    def size(self, digest: str) -> int:
        """Return the blob's size in bytes."""

    def put_file(
        self, path: Path, digest: str, *, verified: bool = False, move: bool = False
    ) -> None:
        """Store a file whose SHA-256 is `digest`; an `IntegrityError` if it is another one.

        `verified`: the caller has just hashed it, so it is not hashed again. `move`: the file may
        be taken rather than copied; it is gone from `path` afterwards.
        """

    def put_bytes(self, data: bytes) -> str:
        """Store a small document and return its digest."""

    def renew(self, digest: str) -> bool:
        """Begin a blob's age anew, as putting it again does; False if it is not there.

        Whoever is about to refer to a blob that was there already calls this first: `discard`
        then leaves it alone.
        """

    def read_bytes(self, digest: str, limit: int) -> bytes:
        """Return a small blob, verified; a `LimitError` if it has more than `limit` bytes."""

    def local_path(self, digest: str) -> Path:
        """Return a file with the blob's bytes, which no one may write to."""

    def delete(self, digest: str) -> None:
        """Delete a blob that nobody else can be putting, if it is there."""

    def discard(self, digest: str, before: float) -> bool:
        """Delete a blob unless it was put or renewed since; atomic against both.

        A blob younger than `before`, in seconds since the epoch, stays. Returns whether it was
        deleted.
        """

    def blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob, in the order of digests."""

    def put_ref(self, name: str, digest: str) -> None:
        """Point a name at a digest, atomically; the last one wins."""

    def get_ref(self, name: str) -> str | None:
        """Return the digest that a name points at."""

    def refs(self, under: str) -> Iterator[str]:
        """Yield the names that begin with `under` and a slash, in order."""

    def area(self, name: str) -> BlobStore:
        """Return a store within this one that shares no blob and no name with it."""

    def areas(self, under: str) -> Iterator[str]:
        """Yield the last parts of the names of areas `<under>/…` that hold anything, in order."""

    def drop(self, area: str) -> None:
        """Delete an area with all that is in it, if there is one."""

    def tidy(self, before: float) -> None:
        """Delete what writers that were killed before that time left half written."""


def check_digest(digest: str) -> str:
    """Return a digest that is safe in a path; refuse any other."""
    if _DIGEST.fullmatch(digest) is None:
        raise SchemaError(f"{digest[:80]!r} is no digest: a SHA-256 has 64 lower-case hex digits")
    return digest


def check_ref(name: str) -> str:
    """Return a mutable name that is safe in a path; refuse any other."""
    if _REF.fullmatch(name) is None:
        raise SchemaError(
            f"{name[:80]!r} cannot name anything: use up to eight parts of a-z, 0-9, '.', '_' "
            "and '-', each starting with a letter or digit, joined by '/'"
        )
    return name


def no_blob(digest: str, where: str) -> NotFoundError:
    """Return the error that says that a blob is not there."""
    return NotFoundError(f"{where} has no blob {digest}; upload it first")


def require_file(path: Path, digest: str) -> None:
    """Refuse to store a file that is not there."""
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such file to store as {digest}")


def require_digest(found: str, digest: str, path: Path) -> None:
    """Refuse to store a file under the digest of another."""
    if found != digest:
        raise IntegrityError(
            f"{path}: has SHA-256 {found}, was to be stored as {digest}; send it again"
        )


def require_small(data: bytes, digest: str, limit: int) -> None:
    """Refuse a blob of more than `limit` bytes, of which one more was read."""
    if len(data) > limit:
        raise LimitError(f"blob {digest} has more than {limit} bytes: it is no document")
