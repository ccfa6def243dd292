"""Samples that a merge's few-sample stage learns from: the lab's and the operator's."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from rootstock.common.errors import DataError
from rootstock.common.image_files.reading import SAMPLES_KEY, ImageReader
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.weights.manifest import BlobEntry, SharedSamples, TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.merges.own_samples import OwnSamples, categories_in, log_doubt, read_own
from rootstock.coordinator.paths import job_area
from rootstock.coordinator.registry import Merge


@dataclass(frozen=True)
class FewSamples:
    """A lab's samples, in its submission's area, and the operator's, in the job's; never one blob.

    What a lab shared is thus in one place, from which it can be taken back.
    """

    shared: SharedSamples | None
    own: BlobEntry | None

    def numbers(self) -> MergeNumbers:
        """Return how many there are, for the merge's record."""
        shared = 0 if self.shared is None else self.shared.count
        own = 0 if self.own is None else self.own.tensors["labels"].shape[0]
        if shared + own == 0:
            return MergeNumbers()
        return MergeNumbers(few_samples=float(shared + own), own_few_samples=float(own))


def few_samples(
    context: CoordinatorContext, merge: Merge, manifest: TeacherManifest, task: TaskSpec
) -> FewSamples:
    """Gather a merge's samples.

    The operator's own (`samples.folder`) tell whether an image shows the category, so they serve
    classifications only. One that cannot be read costs a warning, not the lab its merge.
    """
    own = _own(context, manifest) if task.kind == "binary-classification" else None
    if own is None:
        return FewSamples(manifest.shared_samples, None)
    area = context.store.area(job_area(merge.id))
    blob = put_tensors(area, {"images": own.images_NCHW, "labels": own.labels_N})
    return FewSamples(manifest.shared_samples, blob)


def _own(context: CoordinatorContext, manifest: TeacherManifest) -> OwnSamples | None:
    folder, grey_range = context.config.samples.folder, context.config.samples.grey_range
    if folder is None:
        return None
    try:
        if manifest.category not in categories_in(folder):
            return None
        return read_own(
            folder,
            manifest.category,
            input_shape(manifest.architecture),
            ImageReader(grey_range, SAMPLES_KEY),
            log_doubt,
        )
    except DataError as error:
        structlog.get_logger("samples").warning("samples.left_out", reason=str(error))
        return None
