"""Transplants of and onto nets whose category module is of another architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rootstock.common.nets.architectures import build_category_module, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from rootstock.common.weights import safetensors_io
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.jobs.material import Material, read_samples
from rootstock.coordinator.jobs.model import JobResult, TransplantJob
from rootstock.coordinator.jobs.worker import TransplantWorker
from tests.support.transplant_jobs import SPEC, Transplant, digits

pytestmark = pytest.mark.slow

SMALL = {"input_size": 32, "in_channels": 1}
EXTRACTORS = {
    "wide-resnet": ArchitectureSpec(
        name="wide-resnet", split="block2_1", settings={**SMALL, "widen": 2, "blocks": 1}
    ),
    "mobilenetv2": ArchitectureSpec(
        name="mobilenetv2",
        split="block4",
        settings={**SMALL, "output_stride": 8, "width": 0.5},
    ),
}


def extracted(
    transplant: Transplant, name: str, mean: float
) -> tuple[ArchitectureSpec, dict[str, object]]:
    """Return an architecture, and a category module of it with what a lab measures of "proj"."""
    spec = SPEC.model_copy(update={"extractor": EXTRACTORS[name]})
    f = initialise(build_category_module(spec), 7)
    statistics = {
        "feature_norm": torch.tensor([2.0]),
        "mean/proj": torch.full((4,), mean),
        "variance/proj": torch.full((4,), 0.25),
    }
    return spec, {
        "category_module": transplant.put(f),
        "statistics": put_tensors(transplant.store, statistics),
    }


def finished(job: TransplantJob) -> JobResult:
    worker = TransplantWorker(job)
    while not worker.advance().done:
        pass
    return worker.result()


@pytest.mark.parametrize("name", list(EXTRACTORS))
def test_the_closed_form_holds_above_another_extractor(tmp_path: Path, name: str) -> None:
    transplant = Transplant(tmp_path)
    spec, shipped = extracted(transplant, name, mean=-0.5)
    job = transplant.job(
        samples=None,
        teacher_architecture=spec,
        category_module=shipped["category_module"],
        teacher_statistics=shipped["statistics"],
        student_statistics=transplant.statistics(norm=3.0, mean=0.4),
    )
    result = finished(job)
    assert result.report["solver/biases_from_means"] == 1
    assert result.zero_sample is not None
    entry = result.zero_sample.blob
    tensors = safetensors_io.read(transplant.store.local_path(entry.digest), entry)
    assert float(tensors["beta"]) == 1.5


def test_the_means_are_those_of_the_projected_features(tmp_path: Path) -> None:
    """Of either side, as shipped: no ReLU follows "proj", so negative ones stay negative."""
    transplant = Transplant(tmp_path)
    spec, ours = extracted(transplant, "wide-resnet", mean=-0.5)
    onto, theirs = extracted(transplant, "mobilenetv2", mean=-0.25)
    job = transplant.job(
        samples=None,
        teacher_architecture=spec,
        student_architecture=onto,
        category_module=ours["category_module"],
        teacher_statistics=ours["statistics"],
        student_statistics=theirs["statistics"],
    )
    material = Material.of(job, transplant.store, torch.device("cpu"))
    transplanted = material.without_samples
    assert transplanted.means is not None
    mean_C, mean_M = transplanted.means
    assert mean_C.tolist() == [-0.5] * 4
    assert mean_M.tolist() == [-0.25] * 4
    assert transplanted.source is not None  # images can be dreamed from what was shipped
    assert list(transplanted.source.layers()) == ["proj"]


def test_samples_go_through_the_extractor(tmp_path: Path) -> None:
    transplant = Transplant(tmp_path)
    spec, shipped = extracted(transplant, "wide-resnet", mean=0.0)
    job = transplant.job(teacher_architecture=spec, category_module=shipped["category_module"])
    material = Material.of(job, transplant.store, torch.device("cpu"))
    found = material.transplant(read_samples(transplant.store, job))
    assert found.samples is not None
    f = initialise(build_category_module(spec), 7).eval()
    with torch.inference_mode():
        expected = f(digits(3, 10)[0])
    assert torch.allclose(found.samples.features_NCHW, expected, atol=1e-4)
    assert finished(job).few_sample is not None
