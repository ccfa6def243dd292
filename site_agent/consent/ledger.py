"""The ledger of what left the lab: every number, every file, to whom, and for which question.

Lines of JSON, one file a month below the state folder's `ledger`, only ever added to, and written
before what they name leaves. What is sent again after an interruption may be listed again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from rootstock.common import times
from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError
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
    """The manifest's digest, which a blob belongs to; of a report the question's id."""
    name: str = ""
    """What a blob is: `category_module`, `task_module/TASK`, `statistics`, `shared_samples`,
    `adapter`."""
    digest: str = ""
    """SHA-256 of a blob."""
    bytes: int = Field(default=0, ge=0)
    """Of a blob: what of it was to be sent."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """By name; of a manifest its metrics."""


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

    def report(self, evaluation: str, numbers: dict[str, float]) -> None:
        """Note that the answer to a question is about to leave."""
        self._append("report", subject=evaluation, numbers=numbers)

    def _append(self, what: Literal["manifest", "blob", "report"], **said: object) -> None:
        at = times.now()
        values = {"at": at, "coordinator": self._coordinator, "what": what, **said}
        entry = LedgerEntry.model_validate(values)
        path = self._folder / f"{at[:7]}.jsonl"
        with storage_errors(path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    # What a kill cut short never left: it gets a line of its own.
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(entry.model_dump_json(exclude_defaults=True).encode() + b"\n")
                os.fsync(file.fileno())
            if new:
                sync_folder(self._folder)


def read_ledger(state: Path) -> Iterator[LedgerEntry]:
    """Yield a lab's entries, oldest first; lines that a kill cut short are left out."""
    for path in sorted((state / FOLDER).glob("*.jsonl")):
        with storage_errors(path), path.open("rb") as file:
            for line in file:
                try:
                    yield LedgerEntry.parse(line, what=str(path))
                except SchemaError:
                    continue
