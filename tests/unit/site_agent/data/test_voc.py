"""Masks of a lab's images: read, cropped and moved with them; what is no mask is named."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.distillation.problem import UNLABELLED, pixel_labels
from rootstock.common.errors import ConfigurationError, DataError, SchemaError
from rootstock.common.nets.spec import ImageForm, TaskSpec
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.data.load import load
from rootstock.site_agent.data.voc import voc_colour
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
    return load(
        config, "cat", ImageForm((3, 32, 32)), batch_size=4, warn=discs_are_alike, masks=masks
    )


def discs_are_alike(text: str) -> None:
    assert "validation images look like" in text


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
        load(
            digits_lab.digits(0),
            "0",
            ImageForm((3, 32, 32)),
            batch_size=4,
            warn=digits_lab.fail,
            masks=True,
        )


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


CODINGS: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "0 and 1": lambda shown_HW: Image.fromarray(shown_HW.astype(np.uint8)),
    "0 and 255": lambda shown_HW: Image.fromarray(255 * shown_HW.astype(np.uint8)),
}


@pytest.mark.parametrize(
    ("coding", "held"),
    [("0 and 1", r"0 \(background\) in .*%, 1 \(aeroplane\) in"),
     ("0 and 255", r"0 \(background\) in .*%, 255 \(no label\) in")],
)  # fmt: skip
def test_masks_of_another_coding_are_explained(root: Path, coding: str, held: str) -> None:
    masks = sorted((base(root) / "SegmentationClass").iterdir())
    originals = [np.asarray(Image.open(path)) for path in masks]
    for path, mask_HW in zip(masks, originals, strict=True):
        CODINGS[coding](mask_HW > 0).save(path)
    with pytest.raises(DataError, match=rf"the masks hold {held}.*write 8 for cat, 0 for the"):
        read(root)
    for path, mask_HW in zip(masks, originals, strict=True):  # the remedy
        value = 8 if path.stem.startswith("cat") else 12
        Image.fromarray(value * (mask_HW > 0).astype(np.uint8)).save(path)
    read(root)


def test_a_palette_in_another_order_is_refused(root: Path) -> None:
    path = mask_of(base(root), "cat_0005")
    mask_HW = np.asarray(Image.open(path))
    order = [0, 8, NO_LABEL]
    moved = Image.fromarray(np.searchsorted(order, mask_HW).astype(np.uint8), "P")
    moved.putpalette([part for value in order for part in voc_colour(value)])
    moved.save(path)
    with pytest.raises(DataError, match=r"cat_0005\.png: .*value 1 has the colour of 8 \(cat\)"):
        read(root)
    kept = Image.fromarray(mask_HW, "P")
    kept.putpalette([part for value in range(256) for part in voc_colour(value)])
    kept.save(path)
    read(root)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf{}", b"{}\n\n\n", b"\n \n{}", b"{}\r\n", b"  {}  ",
    ],
    ids=["BOM", "empty lines at the end", "at the start", "Windows", "blanks"],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["", ".jpg", ".JPG", ".png"])
def test_lists_are_read_as_people_write_them(root: Path, text: bytes, ending: str) -> None:
    before = read(root).digest()
    path = base(root) / "ImageSets/Segmentation/trainval.txt"
    names = path.read_text().split()
    eol = b"\r\n" if b"\r" in text else b"\n"
    path.write_bytes(text.replace(b"{}", eol.join(f"{name}{ending}".encode() for name in names)))
    assert read(root).digest() == before


def test_a_name_that_is_listed_twice_counts_once(root: Path) -> None:
    before = read(root).digest()
    path = base(root) / "ImageSets/Segmentation/trainval.txt"
    path.write_text(path.read_text() + "\ncat_0003\ncat_0003.jpg\n")
    warnings: list[str] = []
    config = DataConfig.model_validate(
        {"kind": "voc", "path": root, "rest": ("dog",), "context": 0.2}
    )
    data = load(
        config, "cat", ImageForm((3, 32, 32)), batch_size=4, warn=warnings.append, masks=True
    )
    assert data.digest() == before
    assert warnings == [f"{path} names 1 image more than once, as cat_0003"]


@pytest.mark.parametrize(
    ("folder", "what"), [("JPEGImages", "picture"), ("SegmentationClass", "mask")]
)
def test_entries_without_a_file_are_named(root: Path, folder: str, what: str) -> None:
    for number in (3, 4):
        next((base(root) / folder).glob(f"cat_{number:04}.*")).unlink()
    with pytest.raises(
        DataError, match=rf"2 of 32 entries have no {what} in .*{folder}: cat_0003.*, cat_0004"
    ):
        read(root)
    warnings: list[str] = []
    config = DataConfig(kind="voc", path=root, rest=("dog",), skip_unreadable=True)
    data = load(config, "cat", ImageForm((3, 32, 32)), batch_size=4, warn=warnings.append)
    assert sum(map(len, data.parts().values())) == 30
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("voc/VOCdevkit", r"data\.path is too deep: set it to (.*/voc)$"),
        ("voc/VOCdevkit/VOC2012", r"data\.path is too deep: set it to (.*/voc)$"),
        ("voc/VOCdevkit/VOC2012/JPEGImages", r"data\.path is too deep: set it to (.*/voc)$"),
        ("", r"data\.path is too high: set it to (.*/voc)$"),
    ],
)
def test_a_folder_too_deep_or_too_high_is_answered_with_the_right_one(
    root: Path, given: str, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(root.parent / given)
    assert "download" not in str(caught.value)
    remedy = re.search(said, str(caught.value))
    assert remedy is not None
    read(Path(remedy[1]))


@pytest.mark.parametrize("given", ["", "VOCdevkit"])
def test_another_year_can_be_linked(root: Path, given: str) -> None:
    base(root).rename(base(root).with_name("VOC2007"))
    with pytest.raises(DataError, match=r"there is .*VOC2007 in VOC's layout") as caught:
        read(root / given)
    command = str(caught.value).split("as by: ")[1]
    subprocess.run(command, shell=True, check=True)
    read(root / given)


@pytest.mark.parametrize("missing", ["SegmentationClass", "JPEGImages", "ImageSets/Segmentation"])
def test_a_part_of_the_layout_is_missing(root: Path, missing: str) -> None:
    shutil.rmtree(base(root) / missing)
    with pytest.raises(DataError, match=rf"VOC2012: is no VOC folder.*has no {missing}"):
        read(root)


def test_a_list_that_is_not_there(root: Path) -> None:
    with pytest.raises(DataError, match=r"val\.txt: is missing; there are the lists trainval:"):
        read(root, image_set="val")


def test_a_picture_that_is_turned_lies_on_a_mask_that_is(root: Path) -> None:
    before = read(root)
    picture, mask = base(root) / "JPEGImages" / "cat_0003.jpg", mask_of(base(root), "cat_0003")
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(picture) as image:
        image.load()
        turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.save(picture, exif=exif, quality=95)
    warnings: list[str] = []
    config = DataConfig(kind="voc", path=root, rest=("dog",), context=0.2)
    data = load(
        config, "cat", ImageForm((3, 32, 32)), batch_size=4, warn=warnings.append, masks=True
    )
    assert warnings == []  # the camera asked for it
    assert before.training.keys == data.training.keys
    with Image.open(mask) as image:
        image.load()
        sideways = image.transpose(Image.Transpose.ROTATE_90)
    sideways.save(mask)
    with pytest.raises(DataError, match=r"has 60×80 pixels and its picture 80×60.*viewer shows it"):
        read(root)
