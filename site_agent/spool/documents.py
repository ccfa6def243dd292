"""What travels between agent and coordinator besides manifests: receipts and reports."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError
from rootstock.common.identity import keys
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import Name
from rootstock.common.protocol import receipt_bytes
from rootstock.common.provenance.log import MAX_HEAD_BYTES, LogEntry, LogKind, opened_head
from rootstock.common.provenance.merkle import MAX_PROOF, leaf_hash, verify_inclusion
from rootstock.common.weights.manifest import Digest

MAX_ENTRY = 1 << 16
"""Characters of an entry about a receipt: it has some 500."""

MeanIou = Annotated[float | None, Field(ge=0, le=100)]
"""Percent; None where images are labelled, not pixels."""


class SignedReceipt(Document):
    """The coordinator's word that everything of a manifest is durable there."""

    manifest_digest: Digest
    submission_id: str = Field(min_length=1, max_length=200)
    received_at: str = Field(min_length=1, max_length=64)
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")
    """Ed25519, in hex, over `receipt_bytes`."""
    head: str = Field(default="", max_length=MAX_HEAD_BYTES, exclude_if=lambda head: not head)
    """Of the log with this receipt in it, sealed; older receipts have none."""
    entry: str = Field(default="", max_length=MAX_ENTRY, exclude_if=lambda entry: not entry)
    """What the log says of it, canonical JSON."""
    inclusion: tuple[Digest, ...] = Field(
        default=(), max_length=MAX_PROOF, exclude_if=lambda proof: not proof
    )
    """The proof that the log has the entry, hashes in hex."""

    def verify(self, manifest_digest: str, coordinator_key: bytes) -> None:
        """Raise IntegrityError if it is for another manifest, or signed by another key."""
        if self.manifest_digest != manifest_digest:
            raise IntegrityError(
                f"the receipt is for manifest {self.manifest_digest}, not {manifest_digest}; "
                "the teacher stays in the spool: ship it again"
            )
        signed = receipt_bytes(self.manifest_digest, self.submission_id, self.received_at)
        keys.verify(coordinator_key, bytes.fromhex(self.signature), signed, what="the receipt")

    def verify_logged(self, coordinator_key: bytes) -> None:
        """Raise RefusedError unless it is in the log whose head came with it."""
        head = opened_head(self.head.encode(), coordinator_key, what="the receipt's head")
        entry = LogEntry.parse(self.entry.encode(), what="receipt's entry in the log")
        said = entry.kind, entry.subject, entry.facts.get("manifest")
        if said != (LogKind.RECEIVED, self.submission_id, self.manifest_digest):
            raise IntegrityError(
                f"the receipt of {self.submission_id} came with an entry about {said}"
            )
        verify_inclusion(
            leaf_hash(self.entry.encode()),
            entry.index,
            head.size,
            [bytes.fromhex(each) for each in self.inclusion],
            bytes.fromhex(head.root),
        )


class CalibratedError(Calibration):
    """A calibration of a candidate's output, and how the candidate did with it."""

    error: float = Field(ge=0, le=100)
    """Percent."""
    mean_iou: MeanIou = None


class CandidateError(Document):
    """How one candidate did on private validation data."""

    name: Name
    error: float = Field(ge=0, le=100)
    """Percent, without a calibration."""
    mean_iou: MeanIou = None
    samples: int = Field(ge=1)
    calibration: CalibratedError | None = None
    """None leaves the output as it is."""


class RestAnswer(Document):
    """What a witness says of another lab's join."""

    yes: float = Field(ge=0, le=100)
    """Percent of the lab's validation images of the rest."""
    samples: int = Field(ge=1)


class EvaluationReport(Document):
    """What goes back for an evaluation request: numbers, and the digest of a shipped adapter."""

    evaluation_id: Name
    results: tuple[CandidateError, ...] = Field(default=(), max_length=64)
    refinement_manifest_digest: Digest | None = None
    refined_error: float | None = Field(default=None, ge=0, le=100)
    refined_mean_iou: MeanIou = None
    refined_calibration: CalibratedError | None = None
    refinement_seconds: float = Field(default=0.0, ge=0)
    refinement_steps: int = Field(default=0, ge=0)
    rest: RestAnswer | None = Field(default=None, exclude_if=lambda rest: rest is None)
    """Of a witness, and nothing else."""
    failure: str = Field(default="", max_length=1000)
    """Why it could not be evaluated; empty: it could."""

    def numbers(self) -> dict[str, float]:
        """Return every number that it tells, by what it is of: `no_adapter.error`."""
        told: dict[str, float] = {}
        for result in self.results:
            _tell(told, result.name, result.model_dump(exclude={"name"}))
        if self.refined_error is not None:
            refined = {name: getattr(self, f"refined_{name}") for name in ("error", "mean_iou")}
            refined["seconds"], refined["steps"] = self.refinement_seconds, self.refinement_steps
            calibration = self.refined_calibration
            refined["calibration"] = calibration and calibration.model_dump()
            _tell(told, "refined", refined)
        if self.rest is not None:
            _tell(told, "rest", self.rest.model_dump())
        return told


def _tell(told: dict[str, float], name: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _tell(told, f"{name}.{key}", value)
        elif value is not None:
            told[f"{name}.{key}"] = value
