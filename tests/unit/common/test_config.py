"""TOML files as editors of all systems write them, and paths as people write them."""

import os
from pathlib import Path
from typing import Self

import pytest
from pydantic import model_validator

from rootstock.common.config import ConfiguredPath, check, expand, load
from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.spec import Name


class Lab(Document):
    site: Name
    state: ConfiguredPath


TEXT = '# Labor für Katzen\nsite = "cat-lab"\nstate = "state"\n'


def loaded(tmp_path: Path, data: bytes) -> Lab:
    path = tmp_path / "lab.toml"
    path.write_bytes(data)
    return load(path, Lab)


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.rstrip("\n").encode(),
    ],
)
def test_files_of_other_editors_are_read(tmp_path: Path, data: bytes) -> None:
    assert loaded(tmp_path, data).site == "cat-lab"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TEXT.encode("utf-16"), "lab.toml: is UTF-16 text; save it as UTF-8"),
        (TEXT.encode("utf-16-be"), "is UTF-16 text"),
        (TEXT.encode("utf-16-le"), "is UTF-16 text"),
        (TEXT.encode("utf-32"), "is UTF-16 text|is UTF-32"),
        (TEXT.encode("latin-1"), "byte 0xfc in line 1 is not UTF-8; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "byte 0x89 in line 1 is not UTF-8"),
        (TEXT.replace('"', "\u201c").encode(), r"line 2 has '\u201c' of a word processor"),
        (TEXT.replace("site ", "site\u00a0").encode(), "line 2 has .* of a word processor"),
        (b"site = cat\n", "is not TOML: .*mend that line"),
    ],
)
def test_what_is_no_toml_is_named_with_the_remedy(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        loaded(tmp_path, data)


@pytest.mark.parametrize("name", ["no-such.toml", "", "a\0b"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read .*give the path of a TOML file"):
        load(tmp_path / name, Lab)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/lab", "/home/cat/lab"),
        ("~", "/home/cat"),
        ("$LAB/state", "/srv/lab/state"),
        ("${LAB}/state", "/srv/lab/state"),
        ("$HOME", "/home/cat"),
        ("/srv/~/x", "/srv/~/x"),
        ("a~b", "a~b"),
        ("with space/ä", "with space/ä"),
        ("1$", "1$"),
    ],
)
def test_paths_as_people_write_them(monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.setitem(os.environ, "HOME", "/home/cat")
    monkeypatch.setitem(os.environ, "LAB", "/srv/lab")
    assert expand(text) == Path(path)


@pytest.mark.parametrize(
    "text",
    [
        "~nobody-of-this-name/lab",
        "$NO_SUCH_VARIABLE/lab",
        "/srv/${NO_SUCH_VARIABLE}/lab",
        "",
        "  ",
        "file:///srv/lab",
        "s3://bucket/lab",
        "C:\\labs\\cat",
        "d:/labs/cat",
        "a\0b",
    ],
)
def test_what_nobody_means_as_a_path_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"path .*(write|give)"):
        expand(text)
    if "\0" not in text:
        with pytest.raises(ConfigurationError, match=r"key 'state' = .*: path .*(write|give)"):
            loaded(tmp_path, f"site = 'cat-lab'\nstate = '{text}'\n".encode())


@pytest.mark.parametrize("name", ["Cat-Lab", "Kühe", "", "a b", "-a", "x" * 64, "a\n", "a/b"])
def test_a_name_says_what_it_may_be(tmp_path: Path, name: str) -> None:
    quoted = name.replace("\n", "\\n")
    with pytest.raises(ConfigurationError, match="names have 1 to 63 of the characters a-z"):
        loaded(tmp_path, f'site = "{quoted}"\nstate = "s"\n'.encode())


class Pair(Document):
    first: int
    second: int

    @model_validator(mode="after")
    def _rise(self) -> Self:
        if self.first > self.second:
            raise ValueError("first is above second")
        return self


class Pairs(Document):
    pair: Pair


def test_a_rule_of_a_whole_table_does_not_print_the_table() -> None:
    values = {"first": 2, "second": 1}
    with pytest.raises(ConfigurationError, match=r"^x: first is above second; change the value$"):
        check(values, Pair, source="x")
    with pytest.raises(ConfigurationError, match=r"^x: key 'pair': first is above second; change"):
        check({"pair": values}, Pairs, source="x")


def test_what_is_nested_too_deeply_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        load(tmp_path / "x.toml", Document)
