"""What one transplant of the experiments works on: nets, statistics, samples, images to judge by.

Shapes: N images, C channels of x = f(I), M channels that g_S takes, S side of an image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rootstock.common.distillation.auto.dream import DreamSource
from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.solvers.biases import feature_means
from rootstock.common.distillation.transplant import Transplant
from rootstock.common.errors import DataError
from rootstock.common.images import batches, normalise
from rootstock.common.nets.architectures import (
    feature_shape,
    gives_signed,
    input_shape,
    takes_signed,
)
from rootstock.common.nets.feature_moments import FeatureMoments
from rootstock.common.nets.spec import AdapterSpec
from tests.benchmarks.papers.shared.datasets import PRETRAINED, Dataset, Lab, Labelled, LabSplit
from tests.benchmarks.papers.transplant import teachers
from tests.benchmarks.papers.transplant.shared_task import shared_task_module
from tests.benchmarks.papers.transplant.teachers import Below

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Judged:
    """Features to judge adapters by, and what the images show."""

    features_NCHW: Tensor
    labels_N: Tensor


@dataclass(frozen=True)
class Material:
    """One category to be joined to one task module."""

    category_module: nn.Sequential
    problem: TransplantProblem
    permutation_C: Tensor
    means: tuple[Tensor, Tensor] | None
    source: DreamSource
    moments: FeatureMoments | None
    signed: bool
    """Whether what g_S takes may be negative."""
    split: LabSplit
    held: Judged
    """Of the lab's own images, unseen by the teacher: what a lab calibrates on."""
    test: Judged
    mirror: bool

    @property
    def channels(self) -> int:
        """C, and M as well: all nets here are of one architecture."""
        return self.problem.feature_shape[0]

    def transplant(self, spec: AdapterSpec, samples: int, *, seed: int) -> Transplant:
        """Return what a method may use, with that many samples: half of each side.

        Samples are drawn from the images that the teacher learned from, as a lab would give them;
        fewer samples are a part of more.
        """
        images = None
        chosen = None
        if samples:
            images = self.drawn(samples, seed=seed)
            chosen = Samples(
                features(self.category_module, images.images_NCSS), images.classes_N.float()
            )
        return Transplant(
            problem=self.problem,
            spec=spec,
            samples=chosen,
            permutation_C=self.permutation_C,
            means=self.means,
            source=self.source,
            moments=self.moments,
            category_module=self.category_module,
            image_shape=self.source.input_shape,
            images_NCHW=None if images is None else normalise(images.images_NCSS),
            mirror=self.mirror,
        )

    def drawn(self, samples: int, *, seed: int) -> Labelled:
        generator = torch.Generator().manual_seed(seed * 104_729 + 1)
        order = torch.randperm(len(self.split.training), generator=generator)
        labels_N = self.split.training.classes_N[order]
        sides = [order[labels_N == label] for label in (1, 0)]
        wanted = (samples - samples // 2, samples // 2)
        if any(len(side) < count for side, count in zip(sides, wanted, strict=True)):
            raise DataError(
                f"{samples} samples were asked for and the lab has {len(order)} images; ask for "
                "fewer"
            )
        chosen = [side[:count] for side, count in zip(sides, wanted, strict=True)]
        return self.split.training.at(torch.cat(chosen))


def between(lab: Lab, student: str, *, below: Below | None = None) -> Material:
    """Return what joins a lab's category to a task module.

    Parameters
    ----------
    lab
        Whose category module; its seed is also the reorder layer's and the draws'.
    student
        The category whose teacher gives g_S; the category itself in Experiment 1; "" for a task
        module that was trained for all others (Experiment 4).
    below
        Auxiliary heads that the category's teacher is trained below, if any.
    """
    dataset, split = lab.dataset, lab.split
    own = teachers.trained(lab, below=below)
    ours = teachers.statistics_of(lab, own, below)
    if student == "":
        student_task, theirs = shared_task_module(lab)
    elif student == lab.category:
        student_task, theirs = own.task_modules[teachers.TASK.name], ours
    else:
        other = replace(lab, category=student, dataset=replace(dataset, images=0))
        net = teachers.trained(other)
        student_task = net.task_modules[teachers.TASK.name]
        theirs = teachers.statistics_of(other, net)
    mean_C = feature_means(own.category_module, ours)
    mean_M = feature_means(own.category_module, theirs)
    channels = feature_shape(dataset.architecture)[0]
    teacher_task = own.task_modules[teachers.TASK.name]
    return Material(
        category_module=own.category_module,
        problem=TransplantProblem(
            teacher_task,
            student_task,
            feature_shape(dataset.architecture),
            beta=float(theirs["feature_norm"] / ours["feature_norm"]),
        ),
        permutation_C=torch.arange(channels)
        if dataset.name == PRETRAINED  # as labs' nets are, whose start is one: nothing is reordered
        else reordered(channels, lab.category, lab.seed),
        means=None if mean_C is None or mean_M is None else (mean_C, mean_M),
        source=DreamSource(
            own.category_module, teacher_task, input_shape(dataset.architecture), ours
        ),
        moments=_moments(dataset, ours),
        signed=takes_signed(dataset.architecture),
        split=split,
        held=_judged(own.category_module, split.held),
        test=_judged(own.category_module, split.test),
        mirror=dataset.mirror,
    )


def _moments(dataset: Dataset, shipped: dict[str, Tensor]) -> FeatureMoments | None:
    """Return what features can be drawn from; a lab with few images ships none."""
    if "feature_mean" not in shipped:
        return None
    architecture = dataset.architecture
    signed = gives_signed(architecture)
    return FeatureMoments.shipped(shipped, feature_shape(architecture), signed=signed)


@torch.no_grad()
def features(category_module: nn.Module, images_NCSS: Tensor) -> Tensor:
    """Return x = f(I) of uint8 images."""
    return torch.cat([category_module(part_NCSS) for part_NCSS in batches(images_NCSS, CPU)])


def _judged(category_module: nn.Module, images: Labelled) -> Judged:
    return Judged(features(category_module, images.images_NCSS), images.classes_N.float())


def reordered(channels: int, category: str, seed: int) -> Tensor:
    """Return the reorder layer's permutation (paper, footnote 2), one per category and seed."""
    salt = int.from_bytes(hashlib.sha256(f"{category}/{seed}".encode()).digest()[:7])
    return torch.randperm(channels, generator=torch.Generator().manual_seed(salt))
