"""Data that changes after a teacher net was trained: parts stay, and what changed is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rootstock.common.errors import NotFoundError, SchemaError
from rootstock.common.image_files.findings import FindingKind
from rootstock.common.nets.spec import ImageForm
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.former_images import read_again
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import read
from rootstock.site_agent.data.record import DataRecord, read_record, record_of, write_record
from rootstock.site_agent.data.sides import Loaded
from tests.support.drawn_images import add, cats_and_dogs, picture
from tests.support.voc_layout import mask_of, write_voc

SHAPE = (3, 32, 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = cats_and_dogs(tmp_path / "images")
    picture(3, 150).save(root / "cat" / "copy.png")
    (root / "dog" / "broken.png").write_bytes(b"no image")
    (root / "cat" / os.fsdecode(b"\xff.png")).write_bytes((root / "cat" / "005.png").read_bytes())
    picture(5555).save(root / "cat" / os.fsdecode(b"\xfe.png"))
    return root


def config(root: Path) -> DataConfig:
    return DataConfig(kind="image-folder", path=root, skip_unreadable=True)


@pytest.fixture
def then(root: Path, tmp_path: Path) -> tuple[LabData, DataRecord]:
    """What a teacher net was trained with, and the record of it, written and read."""
    loaded = Loaded()
    data = read(config(root), "cat", ImageForm(SHAPE), loaded, batch_size=4)
    write_record(tmp_path / "record.json", record_of(data, loaded.chosen))
    record = read_record(tmp_path / "record.json")
    assert record is not None
    return data, record


def again(root: Path, record: DataRecord) -> tuple[LabData, list[str]]:
    loaded = Loaded()
    data = read_again(config(root), "cat", ImageForm(SHAPE), loaded, record)
    changes = [each for each in loaded.findings if each.kind is FindingKind.CHANGED_SINCE]
    return data, [each.text for each in changes]


def test_what_did_not_change_is_read_bit_for_bit(
    root: Path, then: tuple[LabData, DataRecord]
) -> None:
    data, record = then
    shutil.copytree(root, root.with_name("moved"))  # other times, another place
    now, changes = again(root.with_name("moved"), record)
    assert now.digest() == data.digest()
    assert changes == []


def test_new_images_are_said_and_not_used(root: Path, then: tuple[LabData, DataRecord]) -> None:
    data, record = then
    add(root, "cat", range(40, 140))
    add(root, "dog", range(40, 140))
    now, (change,) = again(root, record)
    assert now.digest() == data.digest()
    assert "200 images new (" in change
    assert "set new_version = true in site.toml" in change


def removes(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).unlink()


def changes_them(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        picture(9000 + number).save(root / name)


def breaks(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).write_bytes(b"no image")


def moves(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).rename(root / "dog" / f"moved-{number}.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removes, "4 images gone (cat/"),
        (changes_them, "4 images changed (cat/"),
        (breaks, "4 images gone (cat/"),
        (moves, "4 images new (dog/moved-"),
    ],
)
def test_images_of_then_keep_their_parts(
    root: Path,
    then: tuple[LabData, DataRecord],
    change: Callable[[Path, list[str]], None],
    said: str,
) -> None:
    data, record = then
    touched = [key for key in data.validation.keys if key.startswith("cat")][:4]
    change(root, touched)
    now, (text,) = again(root, record)
    assert said in text
    assert now.training.keys == data.training.keys
    assert now.holdout.keys == data.holdout.keys
    assert now.validation.keys == tuple(k for k in data.validation.keys if k not in touched)


@pytest.mark.parametrize(
    ("part", "keep"), [("validation", 2), ("validation", 0), ("holdout", 0), ("training", 0)]
)
def test_too_few_that_remain_are_an_error_with_the_numbers(
    root: Path, then: tuple[LabData, DataRecord], part: str, keep: int
) -> None:
    data, record = then
    removes(root, [k for k in getattr(data, part).keys if k.startswith("cat")][keep:])
    removes(root, [k for k in getattr(data, part).keys if k.startswith("dog")][keep or 1 :])
    with pytest.raises(
        NotFoundError, match=rf"{part} images that the teacher net was made with, {keep} of the cat"
    ):
        again(root, record)


def test_a_changed_mask_is_a_changed_image(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"cat": 16, "dog": 16})
    voc = DataConfig(kind="voc", path=root, rest=("dog",))
    loaded = Loaded()
    data = read(voc, "cat", ImageForm(SHAPE), loaded, batch_size=4, masks=True)
    record = record_of(data, loaded.chosen)
    assert (
        read_again(voc, "cat", ImageForm(SHAPE), Loaded(), record, masks=True).digest()
        == data.digest()
    )
    cat = next(key for key in data.training.keys if key.startswith("cat"))
    path = mask_of(root / "VOCdevkit" / "VOC2012", cat)
    with Image.open(path) as image:
        image.load()
        mask = image.copy()
    middle = mask.getbbox()
    assert middle is not None
    mask.putpixel(((middle[0] + middle[2]) // 2, (middle[1] + middle[3]) // 2), 0)
    mask.putpixel(((middle[0] + middle[2]) // 2 + 1, (middle[1] + middle[3]) // 2), 0)
    mask.save(path)
    loaded = Loaded()
    read_again(voc, "cat", ImageForm(SHAPE), loaded, record, masks=True)
    (change, *_) = loaded.doubts()
    assert f"1 image changed ({cat})" in change.text


def test_a_damaged_record_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("{")
    with pytest.raises(SchemaError, match=r"record\.json.*remove the file"):
        read_record(path)
    path.unlink()
    assert read_record(path) is None
