"""Reads what a job works on from the store: modules, statistics, features of the samples.

Shapes: N samples, C channels of x = f(I), M channels that g_S takes, H/W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from safetensors.torch import load
from torch import Tensor, nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.distillation.auto.dream import DreamSource
from rootstock.common.distillation.problem import Samples, TransplantProblem, pixel_labels
from rootstock.common.distillation.solvers.biases import feature_means
from rootstock.common.distillation.transplant import Transplant
from rootstock.common.errors import SchemaError, TransplantError
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    gives_signed,
    input_shape,
    takes_signed,
)
from rootstock.common.nets.feature_moments import FeatureMoments
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.salt import unsalted
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.net.compose import loaded
from rootstock.coordinator.paths import job_area, samples_area

FEATURE_NORM = "feature_norm"
FEATURE_BATCH = 64
"""Images a pass through f: bounds memory; fixed, so that features are the same on every attempt."""


@dataclass(frozen=True)
class Material:
    """The modules around the adapter, and what the labs shipped about their features."""

    without_samples: Transplant
    category_module: nn.Sequential
    no_source: str
    """Why no images can be dreamed; empty where they can."""
    no_moments: str
    """Why no features can be drawn; empty where they can."""
    device: torch.device
    labels: Literal["labels", "masks"]
    """Which tensor of samples holds the task's labels."""

    @classmethod
    def of(cls, job: TransplantJob, store: BlobStore, device: torch.device) -> Self:
        """Read a job's modules and statistics.

        Raises TransplantError if the modules do not fit together or a feature norm is zero; else
        what the store raises of a blob that is missing, or is not what its entry says.
        """
        teacher, student = job.teacher_architecture, job.student_architecture
        spec = _adapter_spec(job)

        def read(module: nn.Sequential, entry: BlobEntry) -> nn.Sequential:
            return loaded(store, module, entry, device)

        f = read(build_category_module(teacher), job.category_module)
        g_T = read(build_task_module(teacher, job.task), job.teacher_task_module)
        g_S = read(build_task_module(student, job.task), job.student_task_module)
        ours = _tensors(store, job.teacher_statistics)
        theirs = _tensors(store, job.student_statistics)
        mean_C = feature_means(f, ours)
        mean_M = feature_means(build_category_module(student), theirs)
        source, no_source = None, ""
        try:
            measured = moments(ours, f, g_T if job.task_measured else None)
            source = DreamSource(f, g_T, input_shape(teacher), measured)
        except TransplantError as error:  # only methods that dream fail for it
            no_source = str(error)
        drawn_from, no_moments = None, ""
        try:
            drawn_from = FeatureMoments.shipped(
                ours, feature_shape(teacher), signed=gives_signed(teacher)
            )
        except TransplantError as error:  # methods do without
            no_moments = str(error)
        return cls(
            without_samples=Transplant(
                TransplantProblem(g_T, g_S, feature_shape(teacher), rescale(ours, theirs)),
                spec,
                means=None if mean_C is None or mean_M is None else (mean_C, mean_M),
                source=source,
                moments=drawn_from,
                category_module=f,
                image_shape=input_shape(teacher),
            ),
            category_module=f,
            no_source=no_source,
            no_moments=no_moments,
            device=device,
            labels="masks" if job.task.kind == "binary-segmentation" else "labels",
        )

    def transplant(self, given: Mapping[str, Tensor] | None) -> Transplant:
        """Return what methods work on, with the samples that were given, if any.

        Raises SchemaError if there are other tensors than `SharedSamples` names, or the task's
        labels are missing.
        """
        if given is None:
            return self.without_samples
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
        return replace(self.without_samples, samples=samples, images_NCHW=images_NCHW)


def _adapter_spec(job: TransplantJob) -> AdapterSpec:
    """Return the shape of the adapter that joins a job's modules; refuse modules of other sizes."""
    teacher, student = job.teacher_architecture, job.student_architecture
    channels, height, width = feature_shape(teacher)
    taken, *size = feature_shape(student)
    if (height, width) != tuple(size):
        raise TransplantError(
            f"f gives maps of {height}×{width}, g_S takes {size[0]}×{size[1]}; an adapter "
            "keeps the size: train with the plan's architecture, split and input size"
        )
    ours_HW, theirs_HW = input_shape(teacher)[1:], input_shape(student)[1:]
    if job.task.kind == "binary-segmentation" and ours_HW != theirs_HW:
        raise TransplantError(
            f"task '{job.task.name}': g_T labels images of {ours_HW[0]}×{ours_HW[1]} pixels, "
            f"g_S of {theirs_HW[0]}×{theirs_HW[1]}; train with the plan's input size"
        )
    settings = job.settings
    return AdapterSpec(
        in_channels=channels,
        out_channels=taken,
        convs=settings.convs,
        kernel=settings.kernel,
        signed=takes_signed(student),
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

    Network Transplanting, section 4. Raises TransplantError if a norm is not positive and finite.
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
    shipped = safetensors_io.read(store.local_path(entry.digest), entry)
    return {name: unsalted(values) for name, values in shipped.items()}
