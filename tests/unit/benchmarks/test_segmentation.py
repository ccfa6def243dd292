from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from rootstock.common.errors import DataError
from rootstock.common.protocol import NO_LABEL
from rootstock.site_agent.data.voc import VOC_CLASSES
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.papers.shared import voc
from tests.benchmarks.papers.transplant import segmentation

IMAGES_A_PART = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """VOC's layout: windows of a photograph, whose lower half is an animal with an ignored rim."""
    base = tmp_path / "voc2012-animals" / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    photograph = Image.fromarray(load_sample_image("flower.jpg"))
    for part in ("train", "val"):
        names = []
        for animal in voc.ANIMALS:
            for place in range(IMAGES_A_PART):
                name = f"{part}_{animal}_{place}"
                window = photograph.crop((20 * place, 0, 20 * place + 200, 60))
                window.save(base / "JPEGImages" / f"{name}.jpg")
                mask_HW = np.zeros((60, 200), np.uint8)
                mask_HW[30:, :] = VOC_CLASSES.index(animal)
                mask_HW[28:30, :] = NO_LABEL
                Image.fromarray(mask_HW).save(base / "SegmentationClass" / f"{name}.png")
                names.append(name)
        (base / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names))
    return tmp_path


def test_padding_and_the_rim_have_no_label(root: Path, tmp_path: Path) -> None:
    splits = segmentation.load(Folders(root, tmp_path / "cache"))
    split = splits["cat"]
    sizes = (len(split.public), len(split.training), len(split.held), len(split.test))
    assert sizes == (3, 8, 1, 12)
    labels_NSS = split.training.labels_NSS
    # 200×60 in a square of 280: most of it is padding, without a label.
    assert 0.6 < float(labels_NSS.isnan().float().mean()) < 0.9
    known = labels_NSS[~labels_NSS.isnan()]
    assert set(known.tolist()) == {0.0, 1.0}
    again = segmentation.load(Folders(root, tmp_path / "cache"))  # from the cache
    assert torch.equal(again["cat"].test.images_NCSS, split.test.images_NCSS)


def test_labels_move_with_their_images() -> None:
    images = torch.zeros(16, 3, 32, 32)
    images[:, :, :, :16] = 1.0
    labels = images[:, 0].clone()
    x_NCSS, y_NSS = segmentation.changed(images, labels, torch.Generator().manual_seed(0))
    bright = x_NCSS.mean(1) > 0.3
    assert float((bright == (y_NSS > 0.5)).float().mean()) > 0.95
    assert 0.2 < float(y_NSS[:, :, :4].mean()) < 0.8  # some are mirrored


def test_pixel_accuracy_leaves_out_what_has_no_label() -> None:
    labels = torch.tensor([[[1.0, 0.0], [float("nan"), 1.0]]])
    y = torch.tensor([[[2.0, -1.0], [9.0, -3.0]]])
    assert segmentation.pixel_accuracy(y, labels) == pytest.approx(200 / 3)


def test_missing_masks_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --root"):
        segmentation.load(Folders(tmp_path, tmp_path / "cache"))
