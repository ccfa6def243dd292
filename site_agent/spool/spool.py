"""What is trained or measured and not yet acknowledged; it survives restarts and ``kill -9``.

Receipts, evaluations and what was sent belong to one coordinator: they carry the fingerprint FP of
its key. Another coordinator's `evl-0001` is another question, and its receipt proves nothing here::

    spool/
      staging/<random>/               being written; never shipped
      entries/<manifest digest>/      manifest.json, run, blobs/<digest>;
                                      coordinator: FP of the one that it waits for;
                                      sent.FP, once begun
      acknowledged/<…>/               the same and receipt.FP.json for each coordinator that has it:
                                      the lab needs its own f again
      reports/FP/<evaluation>.json    evaluation reports to send
      reported/FP/<evaluation>.json   those that the coordinator has
      aside/<…>/                      what was unfinished or damaged, and why.txt
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rootstock.common.errors import IntegrityError, RefusedError, SchemaError
from rootstock.common.failpoints import failpoint
from rootstock.common.files import (
    file_digest,
    read_capped,
    storage_errors,
    sync_folder,
    write_bytes,
)
from rootstock.common.identity.keys import fingerprint
from rootstock.common.weights.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from rootstock.site_agent.spool.documents import EvaluationReport, SignedReceipt

_MAX_DOCUMENT_BYTES = 1 << 20

WAITS_FOR = "coordinator"
"""File of an entry with the fingerprint of the coordinator that it is to be shipped to."""


@dataclass(frozen=True)
class SpoolEntry:
    """A manifest and its blobs, all on the disk."""

    folder: Path
    manifest: Manifest
    manifest_bytes: bytes
    """What is shipped; signed then, for the coordinator that gets it."""
    run: str
    """What it came from (digest of plan and settings, or an evaluation's id), so that it is not
    made twice."""
    coordinator: str
    """Fingerprint of the coordinator that the spool is opened for."""

    @property
    def acknowledged(self) -> bool:
        """Whether the coordinator has given a receipt for it; another one's does not count."""
        return self.receipt_file.exists()

    @property
    def receipt_file(self) -> Path:
        """Where the coordinator's receipt is, once there is one."""
        return self.folder / f"receipt.{self.coordinator}.json"

    @property
    def waits_for(self) -> str | None:
        """Fingerprint of the coordinator that it is to be shipped to; None: no one yet."""
        try:
            data = read_capped(self.folder / WAITS_FOR, _MAX_DOCUMENT_BYTES, what="fingerprint")
        except FileNotFoundError:
            return None
        return data.decode(errors="replace")

    @property
    def digest(self) -> str:
        """The manifest's digest, which names the entry."""
        return self.folder.name

    @property
    def size(self) -> int:
        """Bytes of its blobs, each counted once."""
        return sum({blob.digest: blob.size for blob in self.manifest.blobs()}.values())

    @property
    def sent(self) -> int:
        """Bytes of its blobs that went to the coordinator, as far as agents lived to note it."""
        try:
            data = read_capped(self.sent_file, _MAX_DOCUMENT_BYTES, what="count")
            return int(data.decode(errors="replace"))
        except (FileNotFoundError, ValueError):  # a damaged figure spoils no shipment
            return 0

    @property
    def sent_file(self) -> Path:
        """Where the count of bytes is that went to the coordinator."""
        return self.folder / f"sent.{self.coordinator}"

    def blob(self, digest: str) -> Path:
        """Return the file of one of the manifest's blobs."""
        return self.folder / "blobs" / digest


class Spool:
    """A folder that only signed receipts empty, as one coordinator is concerned with it.

    Opening it quarantines in `aside` what a crash left unfinished and what the disk has damaged;
    `warn` is called with everything that is quarantined, and why. `coordinator` is the public key
    of the coordinator that the lab has joined.
    """

    def __init__(self, root: Path, warn: Callable[[str], None], coordinator: bytes) -> None:
        self._root = root
        self._warn = warn
        self._coordinator = coordinator
        self._name = fingerprint(coordinator)
        self._reports = root / "reports" / self._name
        self._reported = root / "reported" / self._name
        with storage_errors(root):
            for name in ("staging", "entries", "acknowledged", "aside"):
                (root / name).mkdir(parents=True, exist_ok=True)
            for folder in (self._reports, self._reported):
                folder.mkdir(parents=True, exist_ok=True)
            for folder in sorted((root / "staging").iterdir()):
                self._quarantine(folder, "the agent ended while it was being written")
            self._read("entries", blobs=True)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a folder to write blobs into, each named by its digest; see `commit`."""
        folder = self._root / "staging" / secrets.token_hex(8)
        with storage_errors(folder):
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def commit(self, staging: Path, manifest: Manifest, run: str) -> SpoolEntry:
        """Turn the blobs in a folder of `self.staging` into an entry, durably and in one step.

        Every blob of the manifest is there, flushed, named by digest; for `run` see `SpoolEntry`.
        """
        for blob in manifest.blobs():
            path = staging / blob.digest
            if not path.is_file() or path.stat().st_size != blob.size:
                raise SchemaError(f"{path}: is not the blob of {blob.size} bytes that was staged")
        target = self._root / "entries" / manifest.content_digest()
        known = self.find(target.name)
        known = None if known is None else self.queue(known)
        if known is not None:
            return known
        aside = staging.with_name(staging.name + ".entry")
        with storage_errors(target):
            try:
                (aside / "blobs").mkdir(parents=True)
                for blob in manifest.blobs():
                    (staging / blob.digest).replace(aside / "blobs" / blob.digest)
                sync_folder(aside / "blobs")
                write_bytes(aside / "run", run.encode())
                write_bytes(aside / WAITS_FOR, self._name.encode())
                write_bytes(aside / "manifest.json", manifest.canonical())
                aside.rename(target)
            except OSError:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            sync_folder(target.parent)
        failpoint("spool.added")
        return read_entry(target, self._name)

    def queue(self, entry: SpoolEntry) -> SpoolEntry | None:
        """Let an entry wait for the coordinator, unless that has it.

        It may have been made for another coordinator, or be acknowledged by one. None if it is
        damaged: it is then quarantined.
        """
        if entry.acknowledged or (entry.waits_for == self._name and self._queued(entry)):
            return entry
        target = self._root / "entries" / entry.digest
        with storage_errors(target):
            if not target.is_dir():
                entry.folder.rename(target)
                sync_folder(target.parent)
            write_bytes(target / WAITS_FOR, self._name.encode())
        return next(iter(self._read("entries", name=entry.digest, blobs=True)), None)

    def queue_again(self, entry: SpoolEntry) -> SpoolEntry | None:
        """Let an entry wait for the coordinator that has lost it since it gave its receipt."""
        entry.receipt_file.unlink(missing_ok=True)
        return self.queue(entry)

    def entries(self) -> list[SpoolEntry]:
        """Return what waits to be shipped to the coordinator.

        Damaged entries are quarantined with a warning; what waits for another coordinator stays.
        """
        return [entry for entry in self._read("entries") if entry.waits_for == self._name]

    def acknowledged(self) -> list[SpoolEntry]:
        """Return what the coordinator has given receipts for."""
        return [entry for entry in self.all() if entry.acknowledged]

    def all(self) -> list[SpoolEntry]:
        """Return every entry, whichever coordinator has it or is to get it."""
        return [*self._read("acknowledged"), *self._read("entries")]

    def find(self, digest: str) -> SpoolEntry | None:
        """Return the entry of that manifest, shipped or not, or None."""
        for kind in ("entries", "acknowledged"):
            for entry in self._read(kind, name=digest):
                return entry
        return None

    def made_by(self, run: str) -> list[SpoolEntry]:
        """Return the entries that a run made, those first that the coordinator has."""
        made = [entry for entry in self.all() if entry.run == run]
        return sorted(made, key=lambda entry: not entry.acknowledged)

    def note_sent(self, entry: SpoolEntry, count: int) -> None:
        """Keep how many bytes of an entry's blobs went over the wire so far."""
        if count != entry.sent:
            write_bytes(entry.sent_file, str(count).encode())

    def acknowledge(self, entry: SpoolEntry, receipt: SignedReceipt) -> SpoolEntry:
        """Take an entry out of the queue, once its receipt proves to be the coordinator's.

        Once more does no harm. Where the entry is in both folders (a state folder that was
        copied back, say) the one whose bytes were checked when the spool was opened stays. An entry
        whose receipt is for another manifest or by another key stays, and IntegrityError is raised.
        """
        receipt.verify(entry.digest, self._coordinator)
        target = self._root / "acknowledged" / entry.digest
        with storage_errors(target):
            if target.is_dir() and (entry.folder == target or not entry.folder.is_dir()):
                return read_entry(target, self._name)
            write_bytes(entry.receipt_file, receipt.canonical())
            if target.is_dir():
                shutil.rmtree(target)
            entry.folder.rename(target)
            sync_folder(target.parent)
            sync_folder(self._root / "entries")
        return read_entry(target, self._name)

    def add_report(self, report: EvaluationReport) -> None:
        """Keep a report until the coordinator has it."""
        write_bytes(self._report(report.evaluation_id), report.canonical())

    def reports(self) -> list[EvaluationReport]:
        """Return the reports that the coordinator does not have yet."""
        found = map(self._read_report, sorted(self._reports.glob("*.json")))
        return [report for report in found if report is not None]

    def acknowledge_report(self, evaluation_id: str) -> None:
        """Note that the coordinator has a report."""
        path = self._report(evaluation_id)
        with storage_errors(path):
            path.replace(self._reported / path.name)
            sync_folder(self._reported)

    def reported(self, evaluation_id: str) -> EvaluationReport | None:
        """Return the report of an evaluation, sent or not; None: there is none, or was damaged."""
        path = self._report(evaluation_id)
        return self._read_report(path) or self._read_report(self._reported / path.name)

    def recall_report(self, evaluation_id: str) -> bool:
        """Queue the report of an evaluation that was done before; False if there is none.

        A coordinator that asks again has lost the first one: numbers are sent again, not measured
        again.
        """
        path = self._report(evaluation_id)
        sent = self._reported / path.name
        if path.exists():
            return True
        if not sent.exists():
            return False
        with storage_errors(path):
            sent.replace(path)
            sync_folder(path.parent)
        return True

    def withdraw(self, entry: SpoolEntry, why: str) -> None:
        """Quarantine an entry that must not be shipped any more."""
        self._quarantine(entry.folder, why)

    def withdraw_report(self, report: EvaluationReport, why: str) -> None:
        """Quarantine a report that the coordinator does not take."""
        self._quarantine(self._report(report.evaluation_id), why)

    def _read_report(self, path: Path) -> EvaluationReport | None:
        try:
            data = read_capped(path, _MAX_DOCUMENT_BYTES, what="report")
            return EvaluationReport.parse(data, what=str(path))
        except FileNotFoundError:
            return None
        except SchemaError as error:
            self._quarantine(path, str(error))
            return None

    def _report(self, evaluation_id: str) -> Path:
        return self._reports / f"{evaluation_id}.json"

    def _queued(self, entry: SpoolEntry) -> bool:
        return entry.folder.parent.name == "entries"

    def _read(self, kind: str, *, name: str = "*", blobs: bool = False) -> list[SpoolEntry]:
        folder = self._root / kind
        return read_entries(folder, self._name, self._quarantine, name=name, blobs=blobs)

    def _quarantine(self, path: Path, why: str) -> None:
        target = self._root / "aside" / f"{path.name}-{secrets.token_hex(4)}"
        with storage_errors(path):
            path.rename(target)
            note = target / "why.txt" if target.is_dir() else target.with_suffix(".why.txt")
            write_bytes(note, f"{why}\n".encode())
        self._warn(f"{path}: set aside as {target}: {why}; remove it once you have looked at it")


def read_entries(
    folder: Path,
    coordinator: str,
    damaged: Callable[[Path, str], None],
    *,
    name: str = "*",
    blobs: bool = False,
) -> list[SpoolEntry]:
    """Read the entries of a spool's folder, or that of one name.

    `coordinator` is the fingerprint of the one whose receipts count. `damaged` is called with the
    folder of an entry that is not whole, and why. `blobs`: the bytes of every blob are checked.
    """
    entries = []
    for path in sorted(folder.glob(name)):
        try:
            entry = read_entry(path, coordinator)
            for blob in entry.manifest.blobs() if blobs else ():
                if file_digest(entry.blob(blob.digest)) != blob.digest:
                    raise IntegrityError(f"blob {blob.digest} does not match its digest")
            entries.append(entry)
        except (RefusedError, FileNotFoundError, NotADirectoryError) as error:
            damaged(path, str(error))
    return entries


def read_entry(folder: Path, coordinator: str) -> SpoolEntry:
    """Read an entry, its blobs left unread, and change nothing.

    FileNotFoundError or NotADirectoryError says that it is not whole.
    """
    data = read_capped(folder / "manifest.json", MAX_MANIFEST_BYTES, what="manifest")
    run = read_capped(folder / "run", _MAX_DOCUMENT_BYTES, what="name of a run")
    manifest = parse_manifest(data)
    if manifest.content_digest() != folder.name:
        raise IntegrityError(
            f"{folder}: the manifest has digest {manifest.content_digest()}, not its name"
        )
    return SpoolEntry(folder, manifest, data, run.decode(errors="replace"), coordinator)
