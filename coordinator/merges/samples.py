"""Samples that a merge's few-sample stage learns from: the lab's and the operator's."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from rootstock.common.errors import DataError
from rootstock.common.image_files.reading import SAMPLES_KEY, ImageReader
from rootstock.common.nets.architectures import image_form
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
    classifications only: those that do not judge. One that cannot be read costs a warning, not the
    lab its merge.
    """
    return FewSamples(manifest.shared_samples, _put(context, merge, manifest, task, judging=False))


def judging_samples(
    context: CoordinatorContext, merge: Merge, manifest: TeacherManifest, task: TaskSpec
) -> BlobEntry | None:
    """Put those of the operator's samples that judge into the job's area; None without both sides.

    Nothing was learned from them.
    """
    return _put(context, merge, manifest, task, judging=True)


def _put(
    context: CoordinatorContext,
    merge: Merge,
    manifest: TeacherManifest,
    task: TaskSpec,
    *,
    judging: bool,
) -> BlobEntry | None:
    own = _own(context, manifest) if task.kind == "binary-classification" else None
    if own is None:
        return None
    chosen_N = own.judging_N if judging else ~own.judging_N
    images_NCHW, labels_N = own.images_NCHW[chosen_N], own.labels_N[chosen_N]
    if not 0 < float(labels_N.sum()) < len(labels_N):
        return None
    area = context.store.area(job_area(merge.id))
    return put_tensors(area, {"images": images_NCHW, "labels": labels_N})


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
            image_form(manifest.architecture),
            ImageReader(grey_range, SAMPLES_KEY),
            log_doubt,
        )
    except DataError as error:
        structlog.get_logger("samples").warning("samples.left_out", reason=str(error))
        return None
