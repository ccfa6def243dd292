"""A lab's images from real files, good and bad."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.errors import DataError
from rootstock.common.images import normalise
from rootstock.common.nets.spec import ImageForm
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import load
from tests.support import digits_lab


def picture(path: Path, level: int, seed: int) -> None:
    """Write a picture of noise around a grey level; no two seeds give one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-8, 8, (30, 40, 1))
    Image.fromarray(np.repeat(level + noise, 3, 2).astype(np.uint8)).save(path)


def folder(root: Path, cats: int, dogs: int) -> Path:
    for number in range(cats):
        picture(root / "cat" / f"{number}.png", 200, number)
    for number in range(dogs):
        picture(root / "dog" / f"{number}.jpg", 40, number)
    return root


def load_folder(root: Path, batch_size: int = 4, **changes: object) -> LabData:
    config = DataConfig.model_validate({"kind": "image-folder", "path": root} | changes)
    return load(config, "cat", ImageForm((3, 32, 32)), batch_size=batch_size, warn=digits_lab.fail)


def test_digits_are_split_and_balanced() -> None:
    data = digits_lab.data(0)
    for part in (data.validation, data.holdout):
        positive, negative = part.counts()
        assert positive == negative > 15
    assert data.training.images_NCHW.shape[1:] == (3, 32, 32)
    assert data.training.images_NCHW.dtype == torch.uint8
    assert not data.mirror


def test_a_folder_gives_each_class_its_label(tmp_path: Path) -> None:
    data = load_folder(folder(tmp_path, 12, 12))
    for image_CHW, label in zip(data.training.images_NCHW, data.training.labels_N, strict=True):
        assert (image_CHW.float().mean() > 100) == bool(label)
    x_NCHW = normalise(data.training.images_NCHW[:1])
    assert torch.allclose(x_NCHW.mean(), torch.tensor((200 / 255 - 0.5) / 0.25), atol=0.05)


def test_the_same_files_give_the_same_digest_and_others_do_not(tmp_path: Path) -> None:
    root = folder(tmp_path, 12, 12)
    before = load_folder(root).digest()
    assert before == load_folder(root).digest()
    picture(root / "cat" / "3.png", 199, 3)
    assert before != load_folder(root).digest()


def test_a_wrong_path() -> None:
    with pytest.raises(DataError, match=r"no-such-folder: is not a folder; set data\.path"):
        load_folder(Path("no-such-folder"))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no class folders"):
        load_folder(tmp_path)


def test_an_empty_class(tmp_path: Path) -> None:
    folder(tmp_path, 0, 5)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no image of the category 'cat'"):
        load_folder(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image of the rest"):
        load_folder(folder(tmp_path, 5, 0))


def test_too_few_to_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 2 image\(s\) of the category"):
        load_folder(folder(tmp_path, 2, 9))


def test_fewer_than_a_batch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fewer than one batch of 64.*training\.batch_size"):
        load_folder(folder(tmp_path, 9, 9), batch_size=64)


def test_an_unknown_class_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class 'cow'; it has cat, dog"):
        load_folder(folder(tmp_path, 5, 5), class_name="cow")


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_an_unreadable_image_is_named(tmp_path: Path, damage: str) -> None:
    root = folder(tmp_path, 12, 12)
    bad = root / "dog" / "7.jpg"
    content = bad.read_bytes()
    bad.write_bytes({"text": b"no image", "truncated": content[:200], "empty": b""}[damage])
    with pytest.raises(DataError, match=r"7\.jpg: cannot be read.*skip_unreadable = true"):
        load_folder(root)
    warnings: list[str] = []
    config = DataConfig(kind="image-folder", path=root, skip_unreadable=True)
    data = load(config, "cat", ImageForm((3, 32, 32)), batch_size=4, warn=warnings.append)
    assert len(warnings) == 1
    assert "7.jpg" in warnings[0]
    assert len(data.training) + len(data.holdout) + len(data.validation) == 23


def voc(root: Path) -> Path:
    """Write a VOC folder: cats (8) bright, dogs (12) dark, on grey; one image holds both."""
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    names = []
    for number in range(25):
        both = number == 24
        name, value = f"2008_{number:06}", 8 if number % 2 else 12
        image_HWC = np.random.default_rng(number).integers(120, 136, (60, 90, 3), np.uint8)
        mask_HW = np.zeros((60, 90), np.uint8)
        mask_HW[20:40, 10:30] = value
        image_HWC[20:40, 10:30] //= 8
        image_HWC[20:40, 10:30] += 230 if value == 8 else 0
        if both:
            mask_HW[0:5, 0:5] = 8
        mask_HW[50:52] = 255
        mask_HW[55:57] = 15  # a person does not count
        Image.fromarray(image_HWC).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
        Image.fromarray(mask_HW).save(base / "SegmentationClass" / f"{name}.png")
        names.append(name)
    (base / "ImageSets/Segmentation/trainval.txt").write_text("\n".join(names))
    return root


def test_voc_crops_around_the_only_animal(tmp_path: Path) -> None:
    config = DataConfig(kind="voc", path=voc(tmp_path), rest=("cat", "dog"), context=0.0)
    data = load(config, "cat", ImageForm((3, 32, 32)), batch_size=2, warn=digits_lab.fail)
    parts = (data.training, data.holdout, data.validation)
    keys = [key for part in parts for key in part.keys]
    assert sorted(keys) == [f"2008_{number:06}" for number in range(24)]
    for part in parts:
        for image_CHW, label in zip(part.images_NCHW, part.labels_N, strict=True):
            # The crop holds the animal alone, so no pixel is the background's grey.
            assert (image_CHW > 200).all() if label else (image_CHW < 60).all()


def test_voc_can_take_the_whole_image(tmp_path: Path) -> None:
    config = DataConfig(kind="voc", path=voc(tmp_path), rest=("dog",), crop="image")
    data = load(config, "cat", ImageForm((3, 32, 32)), batch_size=2, warn=digits_lab.fail)
    assert (data.training.images_NCHW.float().std((1, 2, 3)) > 10).all()


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    root = voc(tmp_path)
    masks = root / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    (masks / "2008_000003.png").write_bytes(b"nothing")
    config = DataConfig(kind="voc", path=root, rest=("dog",))
    with pytest.raises(DataError, match=r"2008_000003\.png: cannot be read"):
        load(config, "cat", ImageForm((3, 32, 32)), batch_size=2, warn=digits_lab.fail)


def test_a_folder_that_is_no_voc(tmp_path: Path) -> None:
    config = DataConfig(kind="voc", path=tmp_path)
    with pytest.raises(DataError, match="is no VOC folder"):
        load(config, "cat", ImageForm((3, 32, 32)), batch_size=2, warn=digits_lab.fail)


@pytest.mark.parametrize("kind", ["mnist", "fashion-mnist", "cifar10"])
def test_a_torchvision_set_that_is_not_there(tmp_path: Path, kind: str) -> None:
    config = DataConfig.model_validate({"kind": kind, "path": tmp_path})
    with pytest.raises(DataError, match=r"cannot be read.*data\.download = true"):
        load(config, "cat", ImageForm((3, 32, 32)), batch_size=2, warn=digits_lab.fail)


def idx(values: np.ndarray) -> bytes:
    """Return MNIST's own file format: magic, sizes, bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.tobytes()


@pytest.mark.parametrize(
    ("kind", "folder_name", "category"),
    [("mnist", "MNIST", "3"), ("fashion-mnist", "FashionMNIST", "dress")],
)
def test_torchvision_reads_the_original_files(
    tmp_path: Path, kind: str, folder_name: str, category: str
) -> None:
    raw = tmp_path / folder_name / "raw"
    raw.mkdir(parents=True)
    labels_N = np.arange(60, dtype=np.uint8) % 6
    images_NHW = np.repeat(labels_N * 40, 28 * 28).reshape(60, 28, 28).astype(np.uint8)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images_NHW))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels_N))
    config = DataConfig.model_validate({"kind": kind, "path": tmp_path})
    data = load(config, category, ImageForm((1, 32, 32)), batch_size=2, warn=digits_lab.fail)
    assert data.training.images_NCHW.shape[1:] == (1, 32, 32)
    category_images = data.training.images_NCHW[data.training.labels_N == 1]
    assert (category_images == 120).all()
    assert data.mirror == (kind == "fashion-mnist")
