"""Class folders as labs have them: what is read, what is left out, and that it is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import FindingKind
from rootstock.common.nets.spec import ImageForm
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.data.load import read
from rootstock.site_agent.data.sides import Loaded
from tests.support.drawn_images import cats_and_dogs, picture

SHAPE = (3, 32, 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return cats_and_dogs(tmp_path / "images")


def reading(root: Path, category: str = "cat", **changes: Any) -> tuple[LabData, Loaded]:
    config = DataConfig.model_validate({"kind": "image-folder", "path": root} | changes)
    loaded = Loaded()
    return read(config, category, ImageForm(SHAPE), loaded, batch_size=4), loaded


def keys(data: LabData) -> set[str]:
    return {key for part in data.parts().values() for key in part.keys}


def kinds(loaded: Loaded) -> list[FindingKind]:
    return [finding.kind for finding in loaded.doubts()]


def test_good_folders_leave_nothing_to_say(root: Path) -> None:
    data, loaded = reading(root)
    assert len(keys(data)) == 80
    assert loaded.findings == []
    assert loaded.classes["cat/001.png"] == "cat"


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle"])
def test_copies_in_system_folders_are_not_read(root: Path, name: str) -> None:
    before = reading(root)[0].digest()
    shutil.copytree(root / "cat", root / name)
    shutil.copytree(root / "cat", root / "cat" / name)
    data, loaded = reading(root)
    assert data.digest() == before
    assert loaded.doubts() == []
    assert {finding.kind for finding in loaded.findings} == {FindingKind.SYSTEM_FILES}


def to_itself(root: Path) -> None:
    (root / "cat" / "all").symlink_to(".")


def to_the_root(root: Path) -> None:
    (root / "cat" / "up").symlink_to(root)


def to_the_other_class(root: Path) -> None:
    (root / "cat" / "friends").symlink_to(root / "dog")


def a_second_name(root: Path) -> None:
    (root / "Katze").symlink_to("cat")


@pytest.mark.parametrize("link", [to_itself, to_the_root, to_the_other_class, a_second_name])
def test_links_multiply_nothing(root: Path, link: Callable[[Path], None]) -> None:
    before = reading(root)[0].digest()
    link(root)
    data, loaded = reading(root)
    assert data.digest() == before
    assert kinds(loaded) == [FindingKind.READ_ONCE]


@pytest.mark.parametrize("how", ["a link", "a slash", "relative"])
def test_the_root_may_be_given_in_other_ways(
    root: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reading(root)[0].digest()
    link = root.parent / "link"
    link.symlink_to(root)
    monkeypatch.chdir(root.parent)
    given = {"a link": str(link), "a slash": f"{root}/", "relative": "images"}[how]
    assert reading(Path(given))[0].digest() == before


def test_a_class_of_unknown_files_alone_says_so(root: Path) -> None:
    for path in (root / "cat").iterdir():
        path.rename(path.with_suffix(".dcm"))
    with pytest.raises(
        DataError,
        match=r"no image of the category 'cat'; 40 of 40 files of 'cat' left out: \.dcm \(40\)",
    ) as caught:
        reading(root)
    assert "add images" not in str(caught.value)


def test_half_a_class_of_unknown_files_is_said(root: Path) -> None:
    for path in sorted((root / "dog").iterdir())[:10]:
        path.rename(path.with_suffix(".heic"))
    _, loaded = reading(root)
    (finding,) = loaded.doubts()
    assert finding.subject == "dog"
    assert finding.text.startswith("10 of 40 files of 'dog' left out: .heic (10); known endings")


def test_images_beside_the_class_folders_are_said(root: Path) -> None:
    picture(5000).save(root / "stray.png")
    (root / "README.txt").touch()
    _, loaded = reading(root)
    assert kinds(loaded) == [FindingKind.OUTSIDE_CLASSES]
    assert "1 images lie beside" in loaded.doubts()[0].text


def test_a_pipe_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.png")
    data, loaded = reading(root)
    assert len(keys(data)) == 80
    assert kinds(loaded) == [FindingKind.NO_REGULAR_FILE]


def test_the_first_of_equal_pictures_is_kept(root: Path) -> None:
    picture(3, 150).save(root / "cat" / "003-copy.png")
    picture(3, 150).save(root / "cat" / "003-copy.bmp")
    data, loaded = reading(root)
    (finding,) = loaded.doubts()
    assert finding.kind is FindingKind.TWINS
    assert finding.count == 2
    assert "cat/003-copy.bmp" in keys(data)  # the first by its name
    assert not {"cat/003-copy.png", "cat/003.png"} & keys(data)


def test_a_picture_of_both_sides_is_left_out(root: Path) -> None:
    picture(3, 150).save(root / "dog" / "same.png")
    data, loaded = reading(root)
    (finding,) = loaded.doubts()
    assert finding.kind is FindingKind.CONTRADICTING_TWINS
    assert finding.text.endswith(
        "in the rest at once: cat/003.png, dog/same.png; take them out of one of the two"
    )
    assert not {"cat/003.png", "dog/same.png"} & keys(data)


@pytest.mark.parametrize("change", ["re-encoded", "a thumbnail", "enlarged"])
def test_copies_that_look_alike_are_said(root: Path, change: str) -> None:
    for number in range(40):
        image = picture(number, 150)
        copy = root / "cat" / f"{number:03}-copy.jpg"
        size = {"re-encoded": 32, "a thumbnail": 28, "enlarged": 80}[change]
        image.resize((size, size), Image.Resampling.LANCZOS).save(copy, quality=90)
    data, loaded = reading(root)
    assert len(keys(data)) == 120  # a warning: none is left out
    (finding,) = loaded.doubts()
    assert finding.kind is FindingKind.LOOK_ALIKES
    validation = {key[:7] for key in data.validation.keys if key.startswith("cat")}
    others = {key[:7] for part in (data.training, data.holdout) for key in part.keys}
    assert len(validation & others) > 5
    assert finding.count >= len(validation & others)


@pytest.mark.parametrize("name", ["Cat", "CAT"])
def test_a_class_that_differs_in_case_only_is_said(root: Path, name: str) -> None:
    (root / name).mkdir()
    picture(7000).save(root / name / "1.png")
    _, loaded = reading(root)
    assert kinds(loaded) == [FindingKind.SIMILAR_CLASS]
    assert reading(root, rest=("dog",))[1].findings == []


def test_a_picture_of_one_colour_is_said(root: Path) -> None:
    Image.new("L", (40, 40), 128).save(root / "cat" / "flat.png")
    (finding,) = reading(root)[1].doubts()
    assert finding.text == "1 image of one colour all over, as cat/flat.png"


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        (lambda value: 255 * (value > 128), "2 grey level(s) in all, from 0 to 255 of 255"),
        (lambda value: value // 16, "16 grey level(s) in all, from 0 to 15 of 255"),
        (lambda value: 200 + value // 16, "16 grey level(s) in all, from 200 to 215 of 255"),
    ],
)
def test_parts_of_few_grey_levels_are_said(
    root: Path, change: Callable[[int], int], levels: str
) -> None:
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            changed = image.convert("L").point(change)
        changed.save(path)
    few = [each for each in reading(root)[1].doubts() if each.kind is FindingKind.FEW_LEVELS]
    assert few[0].text.startswith(f"the 48 images of training have {levels};")
    assert [each.count for each in few] == [48, 8, 24]


def test_names_that_are_no_text(root: Path) -> None:
    for number, name in enumerate((b"new\nline.png", b"not-utf8-\xff.png", "猫.png".encode())):
        picture(8000 + number).save(root / "cat" / os.fsdecode(name))
    (root / "cat" / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    data, loaded = reading(root, skip_unreadable=True)
    assert len(keys(data)) == 83
    assert len(data.digest()) == 64
    (finding,) = loaded.doubts()
    assert finding.model_dump_json().encode()
    assert r"\udcfe.png" in finding.text


def test_a_class_that_is_not_wanted_may_be_locked_or_odd(root: Path) -> None:
    (root / "other").mkdir()
    (root / "other" / "1.dcm").touch()
    assert reading(root, rest=("dog",))[1].findings == []


def test_a_class_that_was_left_out_as_a_link_is_told_with_the_refusal(root: Path) -> None:
    shutil.rmtree(root / "cat")
    (root / "cat").symlink_to("dog")
    config, loaded = DataConfig(kind="image-folder", path=root), Loaded()
    with pytest.raises(DataError, match="the dataset has no class 'cat'"):
        read(config, "cat", ImageForm(SHAPE), loaded, batch_size=4)
    (finding,) = loaded.findings
    assert "links to folders that are read already: cat" in finding.text
