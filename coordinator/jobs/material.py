"""What a job works on, read from the store: modules, statistics, features of the samples.

Shapes: N samples, C channels of x = f(I), M channels that g_S takes, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from safetensors.torch import load
from torch import Tensor, nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.distillation.dream_source import DreamSource
from rootstock.common.distillation.problem import Samples, TransplantProblem, pixel_labels
from rootstock.common.distillation.solvers.biases import feature_means
from rootstock.common.distillation.transplant import Transplant
from rootstock.common.errors import SchemaError, TransplantError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    input_shape,
)
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.paths import job_area, samples_area

FEATURE_NORM = "feature_norm"
FEATURE_BATCH = 64
"""Images a pass through f: bounds memory; fixed, so that features are the same on every attempt."""


@dataclass(frozen=True)
class Material:
    """The modules around the adapter, and what the labs said about their features."""

    problem: TransplantProblem
    spec: AdapterSpec
    category_module: nn.Sequential
    image_shape: tuple[int, int, int]
    means: tuple[Tensor, Tensor] | None
    """Channel means of f(I) (C) and of f_S(I) (M), if both labs shipped what they follow from."""
    source: DreamSource | None
    """What images can be dreamed from."""
    no_source: str
    """Why there is none."""
    device: torch.device
    labels: Literal["labels", "masks"]
    """Which tensor of samples holds the task's labels."""

    @classmethod
    def of(cls, job: TransplantJob, store: BlobStore, device: torch.device) -> Self:
        """Read a job's modules and statistics.

        Raises
        ------
        NotFoundError
            If the store lacks a blob.
        SchemaError, IntegrityError
            If a blob is not what its entry says.
        TransplantError
            If the feature maps differ in size, or the maps of a segmentation, or a feature norm is
            zero.
        """
        channels, height, width = feature_shape(job.teacher_architecture)
        taken, *size = feature_shape(job.student_architecture)
        if (height, width) != tuple(size):
            raise TransplantError(
                f"f gives maps of {height}×{width}, g_S takes {size[0]}×{size[1]}; an adapter "
                "keeps the size: train with the plan's architecture, split and input size"
            )

        (_, *ours_HW), (_, *theirs_HW) = map(
            input_shape, (job.teacher_architecture, job.student_architecture)
        )
        if job.task.kind == "binary-segmentation" and ours_HW != theirs_HW:
            raise TransplantError(
                f"task '{job.task.name}': g_T labels images of {ours_HW[0]}×{ours_HW[1]} pixels, "
                f"g_S of {theirs_HW[0]}×{theirs_HW[1]}; train with the plan's input size"
            )

        def load(module: nn.Sequential, entry: BlobEntry) -> nn.Sequential:
            path = store.local_path(entry.digest)
            return safetensors_io.load_frozen(module, path, entry, device)

        category_module = load(build_category_module(job.teacher_architecture), job.category_module)
        teacher = load(
            build_task_module(job.teacher_architecture, job.task), job.teacher_task_module
        )
        student = load(
            build_task_module(job.student_architecture, job.task), job.student_task_module
        )
        ours = _tensors(store, job.teacher_statistics)
        theirs = _tensors(store, job.student_statistics)
        mean_C = feature_means(category_module, ours)
        mean_M = feature_means(build_category_module(job.student_architecture), theirs)
        source, no_source = None, ""
        try:
            source = DreamSource(
                category_module,
                teacher,
                input_shape(job.teacher_architecture),
                moments(ours, category_module, teacher if job.task_measured else None),
            )
        except TransplantError as error:  # only methods that dream fail for it
            no_source = str(error)
        return cls(
            problem=TransplantProblem(
                teacher, student, (channels, height, width), rescale(ours, theirs)
            ),
            spec=AdapterSpec(
                in_channels=channels,
                out_channels=taken,
                convs=job.settings.convs,
                kernel=job.settings.kernel,
            ),
            category_module=category_module,
            image_shape=input_shape(job.teacher_architecture),
            means=None if mean_C is None or mean_M is None else (mean_C, mean_M),
            source=source,
            no_source=no_source,
            device=device,
            labels="masks" if job.task.kind == "binary-segmentation" else "labels",
        )

    def transplant(self, given: Mapping[str, Tensor] | None) -> Transplant:
        """Return what methods work on, with the images that were given, if any.

        Raises
        ------
        SchemaError
            If there are other tensors than `SharedSamples` names, or the task's labels are missing.
        """
        samples, images_NCHW = None, None
        if given is not None:
            needed = {"images", self.labels}
            if not needed <= given.keys() <= {"images", "labels", "masks"}:
                raise SchemaError(
                    f"samples: need the tensors {', '.join(sorted(needed))}, found "
                    f"{', '.join(sorted(given))}; share them again"
                )
            images_NCHW, labels_N = given["images"], given[self.labels]
            if self.labels == "masks":
                labels_N = pixel_labels(labels_N)
            with torch.no_grad():
                parts = [
                    self.category_module(part_NCHW.to(self.device))
                    for part_NCHW in torch.split(images_NCHW, FEATURE_BATCH)
                ]
            samples = Samples(torch.cat(parts), labels_N.to(self.device))
        return Transplant(
            self.problem,
            self.spec,
            samples=samples,
            means=self.means,
            source=self.source,
            category_module=self.category_module,
            image_shape=self.image_shape,
            images_NCHW=images_NCHW,
        )


def read_samples(store: BlobStore, job: TransplantJob) -> dict[str, Tensor]:
    """Return a lab's samples and the operator's, one after the other.

    Straight into memory: of a remote store, no copy of a lab's samples is left on this machine.
    """
    both = (
        (samples_area(job.submission_id), job.samples),
        (job_area(job.merge_id), job.own_samples),
    )
    parts = [
        load(store.area(area).read_bytes(entry.digest, entry.size))
        for area, entry in both
        if entry is not None
    ]
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in ("images", "labels")}


def moments(
    statistics: Mapping[str, Tensor],
    category_module: nn.Sequential,
    teacher_task: nn.Sequential | None,
) -> dict[str, Tensor]:
    """Return the means and variances (C) of layers of f, and of g_T if it was measured."""
    layers = dict(category_module.named_modules())
    if teacher_task is not None:
        layers |= dict(teacher_task.named_modules())
    return {key: value for key, value in statistics.items() if key.partition("/")[2] in layers}


def rescale(teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]) -> float:
    """Return β = E‖f_S(I)‖_F / E‖f(I)‖_F of the rescale layer; 1 if a lab kept its norm.

    Network Transplanting, section 4.

    Raises
    ------
    TransplantError
        If a norm is not positive and finite.
    """
    if FEATURE_NORM not in teacher or FEATURE_NORM not in student:
        return 1.0
    ours, theirs = (float(each[FEATURE_NORM].reshape(-1)[0]) for each in (teacher, student))
    if not (0 < ours < float("inf") and 0 < theirs < float("inf")):
        raise TransplantError(
            f"feature norms are {ours} (teacher) and {theirs} (student) and must be positive; a "
            "category module whose features are all zero cannot be transplanted: train it again"
        )
    return theirs / ours


def _tensors(store: BlobStore, entry: BlobEntry | None) -> dict[str, Tensor]:
    if entry is None:
        return {}
    return safetensors_io.read(store.local_path(entry.digest), entry)
