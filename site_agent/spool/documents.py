"""What travels between agent and coordinator besides manifests: receipts and reports."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError
from rootstock.common.identity import keys
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import Name
from rootstock.common.protocol import receipt_bytes
from rootstock.common.weights.manifest import Digest

MeanIou = Annotated[float | None, Field(ge=0, le=100)]
"""Percent; None where images are labelled, not pixels."""


class SignedReceipt(Document):
    """The coordinator's word that everything of a manifest is durable there."""

    manifest_digest: Digest
    submission_id: str = Field(min_length=1, max_length=200)
    received_at: str = Field(min_length=1, max_length=64)
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")
    """Ed25519, in hex, over `receipt_bytes`."""

    def verify(self, manifest_digest: str, coordinator_key: bytes) -> None:
        """Raise IntegrityError if it is for another manifest, or signed by another key."""
        if self.manifest_digest != manifest_digest:
            raise IntegrityError(
                f"the receipt is for manifest {self.manifest_digest}, not {manifest_digest}; "
                "the teacher stays in the spool: ship it again"
            )
        signed = receipt_bytes(self.manifest_digest, self.submission_id, self.received_at)
        keys.verify(coordinator_key, bytes.fromhex(self.signature), signed, what="the receipt")


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
