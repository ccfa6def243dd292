"""The ledger of what left the lab: every number, every file, to whom, and for which question.

Lines of JSON, one file a month below the state folder's `ledger`, only ever added to, and on the
disk before what they name leaves. What is sent again after an interruption may be listed again; a
last line that was cut short names what never left, and is taken away by the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field

from rootstock.common import times
from rootstock.common.documents import Document
from rootstock.common.files import storage_errors, sync_folder

FOLDER = "ledger"


class LedgerEntry(Document):
    """One thing that left."""

    at: str
    """RFC 3339 in UTC, by this machine's clock."""
    coordinator: str
    """Fingerprint of the key of the coordinator that it went to."""
    what: Literal["manifest", "blob", "report"]
    subject: str
    """The digest of the manifest that it is or belongs to; of a report the question's id."""
    name: str = ""
    """What a blob is: `category_module`, `task_module/TASK`, `statistics`, `shared_samples`,
    `adapter`."""
    digest: str = ""
    """SHA-256 of a blob."""
    bytes: int = Field(default=0, ge=0)
    """How many bytes of a blob were to be sent."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """By name; of a manifest its metrics."""
    failure: str = ""
    """A report's reason for having no numbers."""


class Ledger:
    """Writes what goes to one coordinator; its key's fingerprint names it."""

    def __init__(self, state: Path, coordinator: str) -> None:
        self._folder = state / FOLDER
        self._coordinator = coordinator

    def manifest(self, digest: str, numbers: dict[str, float]) -> None:
        """Note that a manifest is about to leave."""
        self._append("manifest", subject=digest, numbers=numbers)

    def blob(self, manifest: str, name: str, digest: str, size: int) -> None:
        """Note that a blob, or so many bytes of it, is about to leave."""
        self._append("blob", subject=manifest, name=name, digest=digest, bytes=size)

    def report(self, evaluation: str, numbers: dict[str, float], failure: str = "") -> None:
        """Note that the answer to a question is about to leave."""
        self._append("report", subject=evaluation, numbers=numbers, failure=failure)

    def _append(self, what: Literal["manifest", "blob", "report"], **said: object) -> None:
        at = times.now()
        values = {"at": at, "coordinator": self._coordinator, "what": what, **said}
        entry = LedgerEntry.model_validate(values)
        path = self._folder / f"{at[:7]}.jsonl"
        with storage_errors(path):
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(self._folder.parent)
            new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            # Buffered, as a raw write may write a part and only say so.
            with os.fdopen(descriptor, "r+b") as file:
                _cut_unfinished(file)
                file.write(entry.model_dump_json(exclude_defaults=True).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self._folder)


def _cut_unfinished(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def read_ledger(state: Path) -> Iterator[LedgerEntry]:
    """Yield a lab's entries, oldest first, but for a last line that was cut short.

    SchemaError names any other line that is none of an entry.
    """
    folder = state / FOLDER
    try:
        with storage_errors(folder):
            paths = sorted(path for path in folder.iterdir() if path.suffix == ".jsonl")
    except FileNotFoundError:
        return
    for path in paths:
        with storage_errors(path), path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield LedgerEntry.parse(line, what=f"ledger's line {number} of {path}")
