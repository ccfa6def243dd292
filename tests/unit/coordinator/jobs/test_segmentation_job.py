"""A job below a task module that labels pixels: `auto`, with shared masks and without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rootstock.common.errors import SchemaError, TransplantError
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.coordinator.config import SegmentationConfig
from rootstock.coordinator.jobs.material import Material, read_samples
from rootstock.coordinator.jobs.model import TransplantJob
from rootstock.coordinator.jobs.worker import TransplantWorker
from tests.support.transplant_jobs import OUTLINE, SPEC, Transplant, digits, outlines, outlining

pytestmark = pytest.mark.slow

SETTINGS = SegmentationConfig.model_validate(
    {
        "draws": 16,
        "learning_rate": 1e-2,
        "teaching": {"steps": 40, "sample_views": 16, "synthetic": 8},
    }
)


@pytest.fixture
def transplant(tmp_path: Path) -> Transplant:
    transplant = Transplant(tmp_path)
    images_NCHW, labels_N = digits(3, 10)
    tensors = {"images": images_NCHW, "labels": labels_N, "masks": outlines(images_NCHW)}
    transplant.samples = transplant.share(tensors)
    return transplant


def job(transplant: Transplant, merge_id: str = "m1", **changes: object) -> TransplantJob:
    values: dict[str, object] = {
        "task": OUTLINE,
        "teacher_task_module": transplant.put(outlining(0)),
        "student_task_module": transplant.put(outlining(1)),
        "teacher_statistics": transplant.measured(),
        "task_measured": False,
        "settings": SETTINGS,
    }
    return transplant.job(merge_id, **(values | changes))


def test_auto_learns_a_segmentation_and_resumes_bit_for_bit(transplant: Transplant) -> None:
    worker = TransplantWorker(job(transplant, "whole", checkpoint_steps=1000))
    seen = [worker.advance()]
    while not seen[-1].done:
        seen.append(worker.advance())
    assert {progress.steps for progress in seen} == {40}  # none of them a dream's
    whole = worker.result()
    assert whole.fallbacks == {}
    assert whole.methods == {"zero-sample": "auto", "few-sample": "auto"}
    assert whole.zero_sample is not None
    assert whole.zero_sample.spec.kernel == 1
    few = [point for point in whole.curves if point.stage == "few-sample"]
    assert len(few) == 40
    assert all(point.task_loss > 0 for point in few)
    assert sum(point.loss for point in few[-5:]) < sum(point.loss for point in few[:5])
    pieces = job(transplant, "pieces", checkpoint_steps=7)
    while not TransplantWorker(pieces).advance().done:  # a new worker for every piece
        pass
    again = TransplantWorker(pieces).result()
    assert (again.zero_sample, again.few_sample) == (whole.zero_sample, whole.few_sample)


def test_each_task_has_its_own_labels_of_the_same_images(transplant: Transplant) -> None:
    given = read_samples(transplant.store, job(transplant))
    pixels = Material.of(job(transplant), transplant.store, torch.device("cpu"))
    samples = pixels.transplant(given).samples
    assert samples is not None
    assert samples.labels_N.shape == (20, 32, 32)
    assert samples.labels_N[:, :2].isnan().all()
    assert set(samples.labels_N[:, 2:].unique().tolist()) == {0.0, 1.0}
    images = Material.of(transplant.job(), transplant.store, torch.device("cpu"))
    samples = images.transplant(given).samples
    assert samples is not None
    assert torch.equal(samples.labels_N, digits(3, 10)[1])


def test_samples_without_masks_are_refused(transplant: Transplant) -> None:
    images_NCHW, labels_N = digits(3, 10)
    material = Material.of(job(transplant), transplant.store, torch.device("cpu"))
    with pytest.raises(SchemaError, match="need the tensors images, masks, found images, labels"):
        material.transplant({"images": images_NCHW, "labels": labels_N})


def test_task_modules_for_images_of_two_sizes_cannot_be_joined(transplant: Transplant) -> None:
    """Both take maps of 16×16."""
    larger = ArchitectureSpec(
        name=SPEC.name, settings=SPEC.settings | {"input_size": 64}, split="pool2"
    )
    with pytest.raises(TransplantError, match=r"g_T labels images of 32×32 pixels, g_S of 64×64"):
        TransplantWorker(job(transplant, student_architecture=larger)).advance()
