"""What leaves the lab: teacher nets, refined adapters and reports, each in the ledger first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rootstock.common.errors import ConflictError, IdentityError, NotFoundError, RefusedError
from rootstock.common.failpoints import failpoint
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.logs import Log
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.text import outward
from rootstock.common.weights.manifest import BlobEntry, Manifest, TeacherManifest
from rootstock.site_agent.consent.ledger import Ledger
from rootstock.site_agent.spool.documents import EvaluationReport, SignedReceipt
from rootstock.site_agent.spool.spool import Spool, SpoolEntry
from rootstock.site_agent.state import StatusFile
from rootstock.site_agent.teacher.train import remove_checkpoints
from rootstock.site_agent.wire.client import CoordinatorClient, OnBytes
from rootstock.site_agent.wire.upload import Shipment, readable, what_was_sent

_NO_LONGER_WANTED = (RefusedError, ConflictError, NotFoundError)


@dataclass(frozen=True)
class Shipping:
    """Ships what the spool holds to the coordinator that the client calls."""

    client: CoordinatorClient
    key: SigningKey
    coordinator: bytes
    """The coordinator's public key, 32 bytes: what is signed is for its net alone."""
    spool: Spool
    ledger: Ledger
    status: StatusFile
    log: Log
    state: Path
    follow_log: Callable[[SignedReceipt | None], None]
    """Raises IdentityError if the coordinator's log has no such receipt, or was rewritten."""
    _noted: dict[str, int] = field(default_factory=dict)
    """By digest, what is in the ledger since this process started: the most bytes of a blob."""

    def teacher_waits(self) -> bool:
        """Say whether a teacher net is to be shipped."""
        return any(entry.manifest.kind == "teacher" for entry in self.spool.entries())

    def send(self) -> None:
        """Ship all entries, then send all reports, which may name them.

        A teacher that is refused raises the coordinator's reason. A refined adapter or a report
        that is refused (its merge may be long over) is quarantined; the numbers of the other
        candidates are reported without the adapter, and a refused report's reason as a failure, or
        the merge would wait for ever.
        """
        if self.spool.entries() or self.spool.reports():
            self.follow_log(None)
        for entry in self.spool.entries():
            if entry.manifest.kind == "teacher":
                self._ship(entry, "ships the teacher net")
                # The spool has the weights; checkpoints hold the optimiser's state besides.
                remove_checkpoints(self.state)
                continue
            try:
                self._ship(entry, "ships the refined adapter")
            except _NO_LONGER_WANTED as error:
                self.log.error("adapter.refused", manifest=entry.digest, reason=str(error))
                self.spool.withdraw(entry, str(error))
        shipped = {entry.digest for entry in self.spool.acknowledged()}
        for report in self.spool.reports():
            self._report(report, _without_missing(report, shipped))

    def _report(self, report: EvaluationReport, sent: EvaluationReport) -> None:
        name = report.evaluation_id
        self.ledger.report(name, sent.numbers(), sent.failure)
        try:
            first = self.client.report(sent)
        except _NO_LONGER_WANTED as error:
            self.log.error("report.refused", evaluation=name, reason=str(error))
            failure = outward(f"report refused: {type(error).__name__}: {error}")[:1000]
            self.refuse(EvaluationReport(evaluation_id=name, failure=failure))
            self.spool.withdraw_report(report, str(error))
            return
        failpoint("report.sent")
        self.spool.acknowledge_report(name)
        self.log.info("report.sent", evaluation=name, first=first)

    def refuse(self, failure: EvaluationReport) -> None:
        """Report why there are no numbers, and keep nothing of it.

        Tried once: the request itself may be withdrawn, be another lab's, or never have been.
        """
        self.ledger.report(failure.evaluation_id, {}, failure.failure)
        try:
            self.client.report(failure)
        except (*_NO_LONGER_WANTED, IdentityError) as error:
            name = failure.evaluation_id
            self.log.error("report.failure_refused", evaluation=name, reason=str(error))

    def _ship(self, entry: SpoolEntry, message: str) -> None:
        self.log.info("upload.begun", kind=entry.manifest.kind, manifest=entry.digest)

        def on_bytes(done: int, total: int) -> None:
            sentence = message
            if shipment.left_out:
                sent = readable(total - shipment.left_out)
                sentence += f": {sent} of {readable(total)}, the coordinator holds the rest"
            self.status.progress("shipping", done, total, sentence)

        self._note_manifest(entry)
        shipment = self._shipment(entry, on_bytes)
        try:
            receipt = shipment.send()
            failpoint("receipt.arrived")
        finally:
            self.spool.note_sent(entry, shipment.sent)
        # Before it counts as acknowledged, so that whoever starts next looks at it, too.
        self.follow_log(receipt)
        entry = self.spool.acknowledge(entry, receipt)
        self.log.info(
            "upload.acknowledged",
            manifest=entry.digest,
            submission=receipt.submission_id,
            sent_bytes=entry.sent,
            total_bytes=entry.size,
            message=what_was_sent(entry.sent, entry.size),
        )
        if entry.manifest.kind == "teacher":
            self.status.shipped = what_was_sent(entry.sent, entry.size)

    def is_received(self, entry: SpoolEntry) -> bool:
        """Ask whether the coordinator has an entry: that sends its manifest."""
        self._note_manifest(entry)
        return self._shipment(entry).is_received()

    def _shipment(self, entry: SpoolEntry, on_bytes: OnBytes = lambda *_: None) -> Shipment:
        """Return the upload of an entry, signed for this coordinator's net."""
        signature = sign_manifest(self.key, entry.manifest_bytes, key_id(self.coordinator))
        return Shipment(
            self.client,
            entry,
            signature,
            on_bytes,
            lambda blob, size: self._note_blob(entry, blob, size),
        )

    def _note_manifest(self, entry: SpoolEntry) -> None:
        if entry.digest not in self._noted:
            metrics = getattr(entry.manifest, "metrics", {})
            self.ledger.manifest(entry.digest, metrics)
            self._noted[entry.digest] = 0

    def _note_blob(self, entry: SpoolEntry, blob: BlobEntry, size: int) -> None:
        # A coordinator may say first that it has most of a blob, and then ask for all of it.
        if size > self._noted.get(blob.digest, -1):
            name = _blob_names(entry.manifest)[blob.digest]
            self.ledger.blob(entry.digest, name, blob.digest, size)
            self._noted[blob.digest] = size


def _blob_names(manifest: Manifest) -> dict[str, str]:
    """Return what each blob of a manifest is, by digest."""
    if not isinstance(manifest, TeacherManifest):
        return {manifest.adapter.blob.digest: "adapter"}
    shared = manifest.shared_samples
    named = [
        ("category_module", manifest.category_module),
        *((f"task_module/{task}", blob) for task, blob in manifest.task_modules.items()),
        ("statistics", manifest.statistics),
        ("shared_samples", None if shared is None else shared.blob),
    ]
    return {blob.digest: name for name, blob in named if blob is not None}


def _without_missing(report: EvaluationReport, shipped: set[str]) -> EvaluationReport:
    """Leave out a refined adapter that never arrived: refused, or damaged on the disk here."""
    if report.refinement_manifest_digest in {None, *shipped}:
        return report
    return EvaluationReport(evaluation_id=report.evaluation_id, results=report.results)
