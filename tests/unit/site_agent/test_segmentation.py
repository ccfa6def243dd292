"""A lab that teaches both tasks: training, what is shipped, evaluation, refinement."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rootstock.common.distillation.calibration import calibrate_by_labels
from rootstock.common.distillation.settings import AugmentConfig
from rootstock.common.errors import SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec
from rootstock.common.protocol import NO_LABEL
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.site_agent import scoring
from rootstock.site_agent.config import RefinementConfig
from rootstock.site_agent.consent.question import require_maps_fit
from rootstock.site_agent.consent.rounding import rounded
from rootstock.site_agent.evaluation import measure as evaluation
from rootstock.site_agent.evaluation.measure import Joins
from rootstock.site_agent.evaluation.refine import Refinement
from rootstock.site_agent.recipes.interface import Teacher
from rootstock.site_agent.teacher.package import build
from tests.support import digits_lab, masked_lab

SPEC = AdapterSpec(in_channels=8, out_channels=8)


def test_both_tasks_are_learned_above_one_category_module() -> None:
    teacher, validation = masked_lab.teacher("cat"), masked_lab.data().validation

    def errors(net: Teacher) -> dict[str, float]:
        answers = scoring.logits(net.category_module, net.task_modules, validation)
        return {k: scoring.error_percent(y, validation.labels_for(y)) for k, y in answers.items()}

    learned, before = (
        errors(teacher),
        errors(Teacher(*digits_lab.eval_all(masked_lab.start()))),
    )
    assert learned["classification"] < 5
    assert learned["segmentation"] < 8 < before["segmentation"]


def test_the_same_twice(tmp_path: Path) -> None:
    one, two = (masked_lab.train("cat", tmp_path / name, 2) for name in ("one", "two"))
    for first, second in zip(one.modules().values(), two.modules().values(), strict=True):
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key]), key


def shipped(folder: Path, **changes: object) -> TeacherManifest:
    teacher = masked_lab.teacher("cat")
    lab = digits_lab.lab(digits_lab.config(folder, **changes), masked_lab.plan(folder / "plan"))
    return build(lab, teacher, masked_lab.data(), digits_lab.SUPERVISED, folder)


def test_the_gate_takes_both_tasks_with_their_numbers_and_masks(tmp_path: Path) -> None:
    manifest = shipped(tmp_path, share_samples=7)
    admit(manifest, masked_lab.plan(tmp_path / "plan"), lambda digest: tmp_path / digest)
    assert manifest.task_modules.keys() == {"classification", "segmentation"}
    numbers = manifest.metrics
    assert {"error/classification", "error/segmentation", "mean_iou/segmentation"} <= set(numbers)
    assert "mean_iou/classification" not in numbers
    assert 80 < numbers["mean_iou/segmentation"] <= 100
    assert manifest.shared_samples is not None
    blob = manifest.shared_samples.blob
    tensors = safetensors_io.read(tmp_path / blob.digest, blob)
    assert tensors.keys() == {"images", "labels", "masks"}
    assert tensors["masks"].shape == (7, 32, 32)
    for label, mask_HW in zip(tensors["labels"], tensors["masks"], strict=True):
        assert bool((mask_HW == 1).any()) == bool(label)


@pytest.fixture(scope="module")
def joins() -> Joins:
    """Return f of one lab and the segmentation of another, with channels shuffled in between."""
    own, other = masked_lab.teacher("cow"), masked_lab.teacher("cat")
    shuffled = Adapter(SPEC).identity_start()
    shuffled.set_permutation(torch.randperm(8, generator=torch.Generator().manual_seed(4)))
    adapters: dict[str, Adapter | None] = {
        "no_adapter": None,
        "zero_sample": shuffled.eval().requires_grad_(False),
    }
    g = other.task_modules["segmentation"]
    return Joins(own.category_module, g, adapters, "binary-segmentation")


def test_candidates_are_measured_over_labelled_pixels(joins: Joins) -> None:
    data = masked_lab.data("cow")
    plain, shuffled = evaluation.measure(joins, data, calibrates=True)
    assert plain.mean_iou is not None
    assert shuffled.mean_iou is not None
    assert plain.samples == len(data.validation)
    y = scoring.logits(joins.category_module, joins.heads(), data.validation)["no_adapter"]
    error = scoring.error_percent(y, data.validation.labels_for(y))
    assert plain.error == rounded(error) != error
    assert shuffled.calibration is None or shuffled.calibration.mean_iou is not None


def test_a_calibration_is_fitted_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_NHW = (torch.rand(6, 16, 16, generator=generator) < 0.3).float()
    y_NHW = 4 * labels_NHW + torch.randn(6, 16, 16, generator=generator) + 3
    labels_NHW[:, :2] = math.nan
    found = evaluation.calibration(y_NHW, labels_NHW)
    assert found is not None
    before, after = (scoring.error_percent(y, labels_NHW) for y in (y_NHW, found.apply(y_NHW)))
    assert after < 5 < 60 < before
    assert evaluation.calibration(y_NHW, torch.full_like(labels_NHW, math.nan)) is None


def test_a_calibration_of_maps_has_to_serve_most_images() -> None:
    """An image's pixels are wrong together: one of six that gains much is chance."""
    generator = torch.Generator().manual_seed(0)
    labels_NHW = (torch.rand(6, 16, 16, generator=generator) < 0.3).float()
    y_NHW = 6 * labels_NHW - 3 + torch.randn(6, 16, 16, generator=generator)
    y_NHW[0] += 4  # one image's pixels are all too high
    before = scoring.error_percent(y_NHW, labels_NHW)
    fitted = calibrate_by_labels(y_NHW.flatten(), labels_NHW.flatten(), balanced=False)
    assert scoring.error_percent(fitted.apply(y_NHW), labels_NHW) < before
    assert evaluation.calibration(y_NHW, labels_NHW) is None
    assert evaluation.calibration(y_NHW[:1], labels_NHW[:1]) is None


def test_errors_by_image_are_of_labelled_pixels() -> None:
    labels_NHW = torch.tensor([[[1.0, 0.0]], [[math.nan, 1.0]], [[math.nan, math.nan]]])
    y_NHW = torch.tensor([[[1.0, 1.0]], [[5.0, math.nan]], [[1.0, 1.0]]])
    assert scoring.errors_by_image(y_NHW, labels_NHW).tolist() == [0.5, 1.0]
    images_N = scoring.errors_by_image(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0]))
    assert images_N.tolist() == [0.0, 1.0]


def test_refinement_learns_to_segment(joins: Joins) -> None:
    data = masked_lab.data("cow")
    config = RefinementConfig(steps=60, views=1)
    refined = Refinement(joins, data, config, AugmentConfig()).run(SPEC, lambda *_: None)
    assert refined.end < refined.start
    heads = {"refined": evaluation.head(refined.adapter, joins.task_module)}
    y = scoring.logits(joins.category_module, heads, data.validation)["refined"]
    (plain, _) = evaluation.measure(joins, data, calibrates=False)
    assert scoring.error_percent(y, data.validation.labels_for(y)) < plain.error


def test_only_images_with_labelled_pixels_are_learned_from(joins: Joins) -> None:
    data = masked_lab.data("cow")
    config = RefinementConfig(views=2)
    x_NCHW, labels = Refinement(joins, data, config, AugmentConfig()).training_features(
        torch.Generator().manual_seed(0)
    )
    shown = data.training.counts()[0]
    assert len(x_NCHW) == len(labels) == 3 * shown
    assert labels.shape[1:] == (32, 32)
    assert not labels.isnan().flatten(1).all(1).any()
    assert data.training.masks_NHW is not None
    assert (data.training.masks_NHW == NO_LABEL).any()


def test_a_task_module_for_images_of_another_size_is_refused() -> None:
    """Its features fit, its map would not: 16×16 of 64 pixels' second block, too."""
    own = digits_lab.SPEC
    other = ArchitectureSpec(
        name="small-vgg", settings={"input_size": 64, "width": 4}, split="pool2"
    )
    with pytest.raises(SchemaError, match=r"g_S labels images of 64×64 .* lab's have 32×32"):
        require_maps_fit(own, other, masked_lab.SEGMENTATION)
    require_maps_fit(own, own, masked_lab.SEGMENTATION)
    require_maps_fit(own, other, digits_lab.TASK)
