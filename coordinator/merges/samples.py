"""What a merge's few-sample stage learns from: what a lab shared, and what the operator has."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from rootstock.common.errors import DataError
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry, TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.own_samples import categories_in, read_own


@dataclass(frozen=True)
class FewSamples:
    """Samples in the store, or none, and how many of them came from whom."""

    blob: BlobEntry | None
    shared: int
    own: int
    temporary: bool = False
    """Whether the blob was put together for this merge, and has to go with its job."""

    def numbers(self) -> MergeNumbers:
        """Return how many there are for the merge's record; nothing where there are none."""
        if self.blob is None:
            return MergeNumbers()
        return MergeNumbers(
            few_samples=float(self.shared + self.own), own_few_samples=float(self.own)
        )


def few_samples(
    context: CoordinatorContext, manifest: TeacherManifest, task: TaskSpec
) -> FewSamples:
    """Gather a merge's samples.

    The operator's own (`samples.folder`) tell whether an image shows the category, so they serve
    classifications only. One that cannot be read costs a warning, not the lab its merge.

    Parameters
    ----------
    context
        The coordinator's.
    manifest
        The teacher's.
    task
        What is transplanted through.
    """
    shared = manifest.shared_samples
    given = 0 if shared is None else shared.count
    blob = None if shared is None else shared.blob
    own = _own(context, manifest) if task.kind == "binary-classification" else None
    if own is None:
        return FewSamples(blob, given, 0)
    images_NCHW, labels_N = own
    if blob is not None:
        tensors = safetensors_io.read(context.store.local_path(blob.digest), blob)
        images_NCHW = torch.cat([tensors["images"], images_NCHW])
        labels_N = torch.cat([tensors["labels"], labels_N])
    both = put_tensors(context.store, {"images": images_NCHW, "labels": labels_N})
    return FewSamples(both, given, len(own[1]), temporary=True)


def _own(context: CoordinatorContext, manifest: TeacherManifest) -> tuple[Tensor, Tensor] | None:
    folder = context.config.samples.folder
    if folder is None:
        return None
    try:
        if manifest.category not in categories_in(folder):
            return None
        found = read_own(folder, manifest.category, input_shape(manifest.architecture))
    except DataError as error:
        structlog.get_logger("samples").warning("own samples left out", reason=str(error))
        return None
    return found.images_NCHW, found.labels_N
