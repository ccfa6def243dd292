"""Masks of a lab's images: read, cropped and moved with them; what is no mask is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.distillation.problem import UNLABELLED, pixel_labels
from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.lab import needs_masks, tasks_of
from tests.support import digits_lab
from tests.support.voc_layout import mask_of, write_voc

OUTLINE = TaskSpec(name="outline", kind="binary-segmentation")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", {"cat": 16, "dog": 16})


def base(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def read(root: Path, *, masks: bool = True, **changes: object) -> LabData:
    values = {"kind": "voc", "path": root, "rest": ("dog",), "context": 0.2}
    config = DataConfig.model_validate(values | changes)
    return load(config, "cat", (3, 32, 32), batch_size=4, warn=digits_lab.fail, masks=masks)


@pytest.mark.parametrize("crop", ["box", "image"])
def test_a_mask_lies_on_its_category(root: Path, crop: str) -> None:
    data = read(root, crop=crop)
    for part in (data.training, data.holdout, data.validation):
        assert part.masks_NHW is not None
        for image_CHW, mask_HW, label in zip(
            part.images_NCHW, part.masks_NHW, part.labels_N, strict=True
        ):
            if not label:
                assert (mask_HW == NO_LABEL).all()  # where no cat is, none is outlined
                continue
            level_HW = image_CHW.float().mean(0)
            assert 0.02 < (mask_HW == 1).float().mean() < 0.6
            assert (level_HW[mask_HW == 1] > 190).all()
            assert (level_HW[mask_HW == 0] < 190).all()
            assert (mask_HW == NO_LABEL).any()  # the rim


def test_what_lies_beyond_the_picture_has_no_label(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"cat": 8, "dog": 8})
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 20:60] = 8
    for number in range(8):
        Image.fromarray(mask).save(mask_of(base(root), f"cat_{number:04}"))
    data = read(root, context=0.5)  # a square of 120 around 60×40
    assert data.training.masks_NHW is not None
    shown = data.training.masks_NHW[data.training.labels_N == 1]
    assert (shown[:, :7] == NO_LABEL).all()
    assert (shown[:, 9:23, 12:20] == 1).all()
    assert (shown[:, 9:23, 6:10] == 0).all()


def test_without_a_segmentation_no_mask_is_kept(root: Path) -> None:
    plain, masked = read(root, masks=False), read(root)
    assert plain.training.masks_NHW is None
    assert torch.equal(plain.training.images_NCHW, masked.training.images_NCHW)
    assert plain.digest() != masked.digest()
    with pytest.raises(DataError, match="these images have none; give data of kind 'voc'"):
        plain.training.labels_for(torch.zeros(len(plain.training), 32, 32))


def test_labels_are_those_of_what_answers() -> None:
    masks = torch.tensor([[[1, 0], [NO_LABEL, 1]]], dtype=torch.uint8)
    images = ImageSet(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.ones(1), ("a",), masks)
    assert torch.equal(images.labels_for(torch.zeros(1)), torch.ones(1))
    expected = torch.tensor([[[1.0, 0.0], [UNLABELLED, 1.0]]])
    torch.testing.assert_close(images.labels_for(torch.zeros(1, 2, 2)), expected, equal_nan=True)
    torch.testing.assert_close(pixel_labels(masks), expected, equal_nan=True)
    with pytest.raises(SchemaError, match="answers with 1×4×4 and the lab's labels are 1×2×2"):
        images.labels_for(torch.zeros(1, 4, 4))


def test_an_image_whose_mask_has_no_label_is_nobody_s(root: Path) -> None:
    path = mask_of(base(root), "cat_0003")
    Image.fromarray(np.full((60, 80), NO_LABEL, np.uint8)).save(path)
    data = read(root)
    keys = {key for part in (data.training, data.holdout, data.validation) for key in part.keys}
    assert "cat_0003" not in keys
    assert len(keys) == 31


@pytest.mark.parametrize(
    ("mask", "rule"),
    [
        (np.zeros((60, 80, 3), np.uint8), "is no mask but an image of mode RGB.*one channel"),
        (np.full((60, 80), 77, np.uint8), "is no mask: it holds 77.*0 to 20, or 255"),
        (np.full((30, 40), 8, np.uint8), "has 40×30 pixels and its picture 80×60"),
    ],
)
def test_what_is_no_mask_is_named(root: Path, mask: np.ndarray, rule: str) -> None:
    read(root)
    Image.fromarray(mask).save(mask_of(base(root), "cat_0005"))
    with pytest.raises(DataError, match=rf"cat_0005\.png: {rule}.*skip_unreadable = true"):
        read(root)


def test_a_missing_mask_is_named(root: Path) -> None:
    mask_of(base(root), "cat_0005").unlink()
    with pytest.raises(DataError, match=r"cat_0005\.png"):
        read(root)


def test_masks_that_label_nothing_around_the_category(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"cat": 8, "dog": 8})
    for number in range(8):
        Image.fromarray(np.full((60, 80), 8, np.uint8)).save(
            mask_of(base(root), f"cat_{number:04}")
        )
    with pytest.raises(DataError, match="label no pixel of the rest"):
        read(root)


def test_kinds_without_masks_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.kind = 'digits' has no masks.*kind 'voc'"):
        load(digits_lab.digits(0), "0", (3, 32, 32), batch_size=4, warn=digits_lab.fail, masks=True)


def test_a_lab_teaches_what_it_has_labels_for(tmp_path: Path) -> None:
    plan = digits_lab.plan(tmp_path)
    both = plan.model_copy(update={"tasks": (*plan.tasks, OUTLINE)})
    digits = digits_lab.config(tmp_path)
    assert tasks_of(digits, plan) == plan.tasks
    rule = (
        r"task 'outline' is of kind 'binary-segmentation' and data\.kind = 'digits' .*no masks.*"
        r"'voc', or .*tasks = \['classification'\]"
    )
    with pytest.raises(ConfigurationError, match=rule):
        tasks_of(digits, both)
    assert tasks_of(digits.model_copy(update={"tasks": ("classification",)}), both) == plan.tasks
    voc = digits_lab.config(tmp_path, data=DataConfig(kind="voc", path=tmp_path))
    assert tasks_of(voc, both) == both.tasks
    assert tasks_of(voc.model_copy(update={"tasks": ("outline",)}), both) == (OUTLINE,)
    with pytest.raises(ConfigurationError, match="has no task 'edges'; choose from classification"):
        tasks_of(voc.model_copy(update={"tasks": ("edges",)}), both)
    assert needs_masks(both.tasks)
    assert not needs_masks(plan.tasks)
