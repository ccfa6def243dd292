"""Cells of Experiment 3: categories onto the dog's segmentation module (paper, section 4.3).

Shapes: N images, C channels of x = f(I), S side.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import Samples, TransplantProblem
from rootstock.common.distillation.settings import BackDistillationSettings, MethodSettings
from rootstock.common.distillation.transplant import Transplant
from rootstock.common.errors import DataError
from rootstock.common.images import normalise
from rootstock.common.nets.architectures import feature_shape, input_shape
from rootstock.common.nets.feature_moments import FeatureMoments, MomentSums
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.nets.training import in_batches
from rootstock.coordinator.config import MapTeachingSettings
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.transplant import segmentation
from tests.benchmarks.papers.transplant.cells import Cell, Row, learned, plan
from tests.benchmarks.papers.transplant.material import reordered
from tests.benchmarks.papers.transplant.segmentation import Masked, pixel_accuracy

STEPS = 150


def run(cell: Cell) -> list[Row]:
    """Return a cell's rows."""
    setup = cell.setup
    splits = segmentation.load(setup.folders)
    train = partial(segmentation.trained, splits, seed=cell.seed, folders=setup.folders)
    category_module, teacher_task = train(cell.category)
    student = datasets.SIMILAR[setup.data][0]
    student_module, student_task = train(student)
    split = splits[cell.category]
    other = splits[student]
    norms = [
        _features(f, images).flatten(1).norm(dim=1).mean()
        for f, images in ((student_module, other.training), (category_module, split.training))
    ]
    problem = TransplantProblem(
        teacher_task,
        student_task,
        feature_shape(segmentation.ARCHITECTURE),
        beta=float(norms[0] / norms[1]),
    )
    x_NCSS = _features(category_module, split.test)
    sums = MomentSums()
    sums.add(_features(category_module, split.training))
    moments = FeatureMoments.shipped(sums.moments(), problem.feature_shape, signed=False)

    def accuracy(head: nn.Module) -> float:
        return pixel_accuracy(in_batches(head, x_NCSS).squeeze(1), split.test.labels_NSS)

    teacher = accuracy(teacher_task)
    rows = []
    for method, shape, samples in plan(cell):
        began = time.perf_counter()
        transplant = _transplant(problem, category_module, moments, split.training, samples, cell)
        adapter = learned(method, transplant, settings(cell, method))
        rows.append(
            Row(
                experiment=3,
                data=setup.data,
                category=cell.category,
                method=method,
                adapter=shape,
                samples=samples,
                seed=cell.seed,
                error=None,
                teacher_error=None,
                pixel_accuracy=accuracy(nn.Sequential(adapter.eval(), student_task)),
                teacher_pixel_accuracy=teacher,
                seconds=time.perf_counter() - began,
            )
        )
    return rows


def settings(cell: Cell, method: str) -> MethodSettings:
    """Return the paper's settings (λ = 1 / E‖D'_T‖, G of the output's size), and ours."""
    steps = STEPS // 2 if cell.setup.quick else STEPS
    ours = method == "auto"
    learning = BackDistillationSettings(
        steps=steps,
        learning_rate=1e-3 if ours else 1e-2,
        policy="exp3",
        distillation=1.0,
        draws=128,
        batch_size=32,
        seed=cell.seed,
    )
    teaching = MapTeachingSettings(steps=steps)
    return MethodSettings(
        start="matched" if ours else None, ridge=1e-2, learning=learning, teaching=teaching
    )


def _transplant(
    problem: TransplantProblem,
    category_module: nn.Sequential,
    moments: FeatureMoments,
    training: Masked,
    samples: int,
    cell: Cell,
) -> Transplant:
    channels = problem.feature_shape[0]
    chosen, images_NCSS = None, None
    if samples > len(training):
        raise DataError(
            f"{samples} samples were asked for and the lab has {len(training)} images; ask for "
            "fewer"
        )
    if samples:
        generator = torch.Generator().manual_seed(cell.seed * 104_729 + 1)
        few = training.at(torch.randperm(len(training), generator=generator)[:samples])
        chosen = Samples(_features(category_module, few), few.labels_NSS)
        images_NCSS = normalise(few.images_NCSS)
    return Transplant(
        problem=problem,
        spec=AdapterSpec(in_channels=channels, out_channels=channels),
        samples=chosen,
        permutation_C=reordered(channels, cell.category, cell.seed),
        moments=moments,
        category_module=category_module,
        image_shape=input_shape(segmentation.ARCHITECTURE),
        images_NCHW=images_NCSS,
        mirror=True,
    )


def _features(category_module: nn.Module, images: Masked) -> Tensor:
    return in_batches(category_module, normalise(images.images_NCSS))


def prepare(cell: Cell) -> None:
    """Train what a seed's cells need, so that no two cells train the same net."""
    folders = cell.setup.folders
    segmentation.trained(segmentation.load(folders), cell.category, seed=cell.seed, folders=folders)
