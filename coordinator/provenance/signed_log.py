"""The log under the coordinator's signature: its head for labs, and beside the database."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import structlog

from rootstock.common import times
from rootstock.common.errors import NotFoundError, StorageError
from rootstock.common.files import read_capped, remove_leftovers, write_bytes
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.provenance.log import MAX_HEAD_BYTES, LogHead, LogKind, opened_head
from rootstock.coordinator.registry.database import Change
from rootstock.coordinator.registry.log import Log


class LoggedReceipt(NamedTuple):
    """A sealed head, the entry about a receipt, and the proof that the log of the head has it."""

    head: bytes
    entry: bytes
    proof: list[bytes]


class SignedLog:
    """Signs heads of the log, and keeps the newest in a file."""

    def __init__(self, log: Log, key: SigningKey, file: Path) -> None:
        self._log, self._key, self._file = log, key, file
        self._kept = -1
        self._keeping = threading.Lock()
        # Asked again, the same head: a receipt that is given twice is the same receipt.
        self._sealed = lru_cache(maxsize=16)(self._seal)

    def head(self, size: int | None = None) -> bytes:
        """Return the sealed head of the first `size` entries, of all by default."""
        return self._sealed(*self._log.root(size))

    def receipt(self, upload_id: str) -> LoggedReceipt:
        """Return what the log says of an upload's receipt, with the head that proves it."""
        found = self._log.included(LogKind.RECEIVED, upload_id)
        head = self._sealed(found.size, found.root)
        return LoggedReceipt(head, found.entry.canonical(), found.proof)

    def continuing(self, known: int, size: int | None = None) -> tuple[bytes, list[bytes]]:
        """Return a sealed head, and the proof that it continues one of `known` entries.

        A size that the log does not have is answered with the newest head, and no proof: whoever
        asks has then a signature under what the log was cut to.
        """
        size, root = self._log.root(None if size is None else min(size, self._log.size()))
        proof = [] if known > size else self._log.consistency(known, size)
        return self._sealed(size, root), proof

    def check(self) -> None:
        """Refuse a database whose log does not continue what the file says; else keep its head."""
        remove_leftovers(self._file)
        known = read_head(self._file, self._key.public_key)
        if known is not None and (problem := _broken(self._log, known)):
            raise StorageError(
                f"{problem}. Was the database alone put back from a backup? Put back the newest "
                f"one; or, if what came after is lost, remove {self._file} and tell the labs: "
                "their agents notice, and wait for their operators' word"
            )
        self.keep(Change(logged=True))

    def keep(self, change: Change) -> None:
        """Write the newest head to the file if a change has appended to the log."""
        if not change.logged:
            return
        try:
            with self._keeping:
                size, root = self._log.root()
                if size > self._kept:
                    write_bytes(self._file, self._sealed(size, root))
                    self._kept = size
        except StorageError as error:  # what was committed is: an older head is still a head
            structlog.get_logger("log").warning("log.head_not_kept", error=str(error))

    def _seal(self, size: int, root: bytes) -> bytes:
        net = key_id(self._key.public_key)
        return LogHead(size=size, root=root.hex(), at=times.now(), net=net).sealed(self._key)


def read_head(file: Path, coordinator: bytes) -> LogHead | None:
    """Return the head that a file holds, signed by the coordinator; None if there is no file."""
    try:
        data = read_capped(file, MAX_HEAD_BYTES, what="head of a log")
    except FileNotFoundError:
        return None
    return opened_head(data, coordinator, what=str(file))


def _broken(log: Log, known: LogHead) -> str:
    """Say in what way a log does not continue a head that was signed; empty: it does."""
    try:
        _, root = log.root(known.size)
    except NotFoundError:
        return (
            f"the log has {log.size()} entries, a head that was signed {known.at} had {known.size}"
        )
    except StorageError as error:
        return str(error)
    if root.hex() != known.root:
        return (
            f"the first {known.size} entries of the log are not those that were signed {known.at}"
        )
    return ""
