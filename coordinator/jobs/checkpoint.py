"""A job's checkpoint in its area of the store: a document, tensors, and a ref to the newest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from torch import Tensor

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.documents import Document
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.coordinator.jobs.model import CurvePoint, Stage, TransplantJob

REF = "checkpoint"

MAX_BYTES = 16 << 20
"""A checkpoint's document names tensors and holds a few hundred points of curves."""


class Checkpoint(Document):
    """How far a job is. The tensors are blobs of their own."""

    job: Digest
    """See `job_digest`; another job under the same merge id starts anew."""
    zero_sample: AdapterEntry | None = None
    few_sample: AdapterEntry | None = None
    step: int = Field(default=0, ge=0)
    state: BlobEntry | None = None
    """Everything that the present stage's learning needs to carry on after `step`."""
    dream: BlobEntry | None = None
    """What the zero-sample stage dreamed, if it did: the few-sample stage need not dream again."""
    curves: tuple[CurvePoint, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    report: dict[str, float] = Field(default_factory=dict)
    fallbacks: dict[Stage, str] = Field(default_factory=dict)
    without: dict[Stage, str] = Field(default_factory=dict)

    def digests(self) -> set[str]:
        """Return what is in the job's area for this checkpoint alone."""
        entries = (self.state, self.dream)
        return {self.content_digest(), *(entry.digest for entry in entries if entry is not None)}


def job_digest(job: TransplantJob) -> str:
    """Return a digest of what decides the result: no paths, nor how often to save."""
    return job.model_copy(
        update={"artifacts": "", "cache": None, "checkpoint_steps": 1, "submission_id": ""}
    ).content_digest()


def load(area: BlobStore, job: TransplantJob) -> Checkpoint:
    """Return a job's last checkpoint, or an empty one."""
    digest, ref = job_digest(job), area.get_ref(REF)
    if ref is not None:
        last = Checkpoint.parse(area.read_bytes(ref, MAX_BYTES), what="checkpoint")
        if last.job == digest:
            return last
    return Checkpoint(job=digest)


def save(area: BlobStore, checkpoint: Checkpoint, before: Checkpoint) -> None:
    """Store a checkpoint durably, and only then delete the one before it."""
    area.put_ref(REF, area.put_bytes(checkpoint.canonical()))
    for digest in before.digests() - checkpoint.digests():
        area.delete(digest)


def put_tensors(store: BlobStore, tensors: Mapping[str, Tensor]) -> BlobEntry:
    """Store tensors as a blob and describe it."""
    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        path = Path(folder, "blob.safetensors")
        entry = safetensors_io.write(path, tensors)
        store.put_file(path, entry.digest, verified=True, move=True)
    return entry
