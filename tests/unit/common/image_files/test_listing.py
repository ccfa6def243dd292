"""Folders of images as labs have them: system files, loops, pipes, endings, odd names."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rootstock.common.errors import DataError
from rootstock.common.image_files.findings import FindingKind
from rootstock.common.image_files.listing import SUFFIXES, LeftOut, ending, list_images, subfolders

NOBODY = 65534


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """A folder of three images; files are only listed, so they may be empty."""
    root = tmp_path / "cat"
    root.mkdir()
    for name in ("1.jpg", "2.PNG", "3.tiff"):
        (root / name).touch()
    return root


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root).paths]


SYSTEM = [
    ".ipynb_checkpoints", ".thumbnails", ".Trash-1000", "@eaDir", "@Recycle", "__MACOSX",
    "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "#snapshot",
    "Network Trash Folder", "RECYCLER", "__pycache__",
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEM)
def test_a_system_folder_is_no_class_and_no_part_of_one(cats: Path, name: str) -> None:
    for folder in (cats / name, cats / "ward" / name, cats.parent / name):
        folder.mkdir(parents=True)
        (folder / "1.jpg").touch()
    assert names(cats) == ["1.jpg", "2.PNG", "3.tiff"]
    folders, listing = subfolders(cats.parent)
    assert folders == [cats]
    assert listing.left_out[LeftOut.SYSTEM] == [cats.parent / name]


@pytest.mark.parametrize(
    "name", ["._1.jpg", ".hidden.png", "@thumb.jpg", "Thumbs.db", "desktop.ini"]
)
def test_a_system_file_is_no_image(cats: Path, name: str) -> None:
    (cats / name).touch()
    listing = list_images(cats)
    assert len(listing.paths) == 3
    (finding,) = listing.findings("'cat'", cats)
    assert finding.kind is FindingKind.SYSTEM_FILES
    assert not finding.doubtful


def test_the_folder_that_is_given_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / ".data" / "@home"
    root.mkdir(parents=True)
    (root / "1.jpg").touch()
    assert names(root) == ["1.jpg"]


def to_itself(cats: Path) -> None:
    (cats / "all").symlink_to(".")


def to_the_parent(cats: Path) -> None:
    (cats / "up").symlink_to("..")


def to_a_subfolder(cats: Path) -> None:
    (cats / "ward").mkdir()
    (cats / "ward" / "4.jpg").touch()
    (cats / "a-link-before-it").symlink_to("ward")


def twice_to_one_folder(cats: Path) -> None:
    other = cats.parent / "elsewhere"
    other.mkdir()
    (other / "4.jpg").touch()
    (cats / "first").symlink_to(other)
    (cats / "second").symlink_to(other)


def in_a_circle(cats: Path) -> None:
    (cats / "a").mkdir()
    (cats / "b").mkdir()
    (cats / "a" / "to-b").symlink_to("../b")
    (cats / "b" / "to-a").symlink_to("../a")


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (to_itself, []),
        (to_the_parent, ["up/dog/9.jpg"]),
        (to_a_subfolder, ["ward/4.jpg"]),
        (twice_to_one_folder, ["first/4.jpg"]),
        (in_a_circle, []),
    ],
)
def test_each_real_folder_is_read_once(
    cats: Path, link: Callable[[Path], None], expected: list[str]
) -> None:
    (cats.parent / "dog").mkdir()
    (cats.parent / "dog" / "9.jpg").touch()
    link(cats)
    listing = list_images(cats)
    assert names(cats) == ["1.jpg", "2.PNG", "3.tiff", *expected]
    assert listing.left_out[LeftOut.SEEN]


def test_of_two_names_of_one_class_folder_the_real_one_is_the_class(cats: Path) -> None:
    (cats.parent / "Katze").symlink_to("cat")
    folders, listing = subfolders(cats.parent)
    assert folders == [cats]
    assert listing.left_out[LeftOut.SEEN] == [cats.parent / "Katze"]


def test_only_regular_files_are_images(cats: Path) -> None:
    os.mkfifo(cats / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(cats)  # a socket's path is short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
    (cats / "nowhere.jpg").symlink_to("missing.jpg")
    (cats / "loop.jpg").symlink_to("loop.jpg")
    (cats / "link.jpg").symlink_to("1.jpg")
    listing = list_images(cats)
    assert [path.name for path in listing.paths] == ["1.jpg", "2.PNG", "3.tiff", "link.jpg"]
    assert [path.name for path in listing.left_out[LeftOut.NO_FILE]] == ["pipe.jpg", "socket.png"]
    dangling = [path.name for path in listing.left_out[LeftOut.DANGLING]]
    assert dangling == ["loop.jpg", "nowhere.jpg"]


@pytest.mark.parametrize(
    "suffix", ["heic", "dcm", "nii.gz", "svs", "CR2", "raw", "mp4", "zip", "npy"]
)
def test_unknown_endings_are_counted_with_the_known_ones(cats: Path, suffix: str) -> None:
    for number in range(18):
        (cats / f"{number}.{suffix}").touch()
    for number in range(2):
        (cats / f"scan-{number}").touch()
    (cats / "labels.csv").touch()
    (cats / "1.json").touch()
    doubtful = [each for each in list_images(cats).findings("'cat'", cats) if each.doubtful]
    (finding,) = doubtful
    assert finding.count == 20
    assert finding.text.startswith(
        f"20 of 23 files of 'cat' left out: .{suffix.lower()} (18), no ending (2); known endings"
    )
    assert all(suffix in finding.text for suffix in SUFFIXES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.JPG", ".jpg"), ("a.b.nii.gz", ".nii.gz"), ("a.v1.png", ".png"), ("README", "no ending")],
)
def test_endings(name: str, expected: str) -> None:
    assert ending(Path(name)) == expected


@contextmanager
def no_root() -> Iterator[None]:
    """Be somebody who may not enter every folder, as labs' agents are."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o300])
def test_a_folder_that_cannot_be_listed_is_an_error(mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        locked = root / "ward-b"
        locked.mkdir()
        (locked / "1.jpg").touch()
        if os.geteuid() == 0:
            os.chown(locked, NOBODY, NOBODY)
        locked.chmod(mode)
        with no_root():
            with pytest.raises(
                DataError, match=r"ward-b: cannot be listed \(Permission denied\); "
            ):
                list_images(root)
            locked.chmod(0o755)  # the remedy
            assert names(root) == ["ward-b/1.jpg"]


def test_names_that_are_no_text_stay_printable(cats: Path) -> None:
    for name in (b"new\nline.dcm", b"not-utf8-\xff.dcm", "schön.dcm".encode()):
        (cats / os.fsdecode(name)).touch()
    (finding,) = list_images(cats).findings("'cat'", cats)
    finding.model_dump_json().encode()
    assert "\n" not in finding.text


def test_ten_thousand_files_are_listed_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}.jpg").touch()
    listing = list_images(tmp_path)
    assert [path.name for path in listing.paths] == [f"{n:05}.jpg" for n in range(10_000)]
