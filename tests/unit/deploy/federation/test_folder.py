"""What `up` and `demo` do with a folder that is not theirs, or not theirs alone: nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.common.errors import ConfigurationError, ConflictError
from rootstock.common.files import only_one
from rootstock.deploy.federation.folder import (
    Maker,
    locked,
    remove_demo,
    require_own,
    state_folder,
    write_marker,
)


def demo(folder: Path) -> Path:
    """Make what a demo leaves, without running one."""
    for name in ("coordinator", "sites/lab-zero/spool", "logs", "configuration", "mlflow"):
        (folder / name).mkdir(parents=True)
    (folder / "coordinator" / "registry.sqlite").write_text("x")
    for state in ("coordinator", "sites/lab-zero"):
        (folder / state / "lock").write_text("1")
    (folder / "logs" / "lab-zero.log").write_text("x")
    (folder / "configuration" / "lab-zero.toml").write_text("x")
    (folder / "net.png").write_text("x")
    write_marker(folder, Maker.DEMO, "{}")
    return folder


def contents(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def user_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def export_beside(folder: Path) -> None:
    (folder / "cat.onnx").write_text("mine")


def user_log(folder: Path) -> None:
    (folder / "logs" / "thesis.tex").write_text("mine")


def user_site(folder: Path) -> None:
    (folder / "sites" / "lab-mine").mkdir()


def linked_part(folder: Path) -> None:
    moved = folder.parent / "larger-disk"
    (folder / "coordinator").rename(moved)
    (folder / "coordinator").symlink_to(moved)


def hidden_file(folder: Path) -> None:
    (folder / ".git").mkdir()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (user_file, "notes.txt"),
        (export_beside, "cat.onnx"),
        (user_log, "logs/thesis.tex"),
        (user_site, "sites/lab-mine"),
        (linked_part, "coordinator"),
        (hidden_file, ".git"),
    ],
)
def test_a_demo_with_anything_else_in_it_is_not_deleted(
    tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    folder = demo(tmp_path / "demo")
    change(folder)
    before = contents(tmp_path)
    with pytest.raises(ConflictError, match=rf"not: {named}; move it away"):
        remove_demo(folder)
    assert contents(tmp_path) == before


def test_what_a_demo_made_is_deleted_and_its_lock_stays(tmp_path: Path) -> None:
    folder = demo(tmp_path)
    with locked(folder):
        remove_demo(folder)
        assert contents(folder) == ["lock"]


@pytest.mark.parametrize("state", ["coordinator", "sites/lab-zero"])
def test_a_demo_of_which_a_process_runs_is_not_deleted(tmp_path: Path, state: str) -> None:
    folder = demo(tmp_path)
    with only_one(folder / state, "process"):
        before = contents(folder)
        with pytest.raises(ConflictError, match=r"process \d+ runs in it"):
            remove_demo(folder)
        assert contents(folder) == before


@pytest.mark.parametrize(
    ("maker", "present", "said"),
    [
        (Maker.DEMO, "federation.json", "`rootstock up` made this folder"),
        (Maker.UP, "demo.json", "`rootstock demo` made this folder"),
        (Maker.DEMO, "thesis.tex", "has thesis.tex, which `rootstock demo` did not make"),
        (Maker.DEMO, ".bashrc", "has .bashrc"),
        (Maker.UP, "coordinator", "has coordinator"),
        (Maker.UP, "logs", "has logs"),
        (Maker.UP, "net.png", "has net.png"),
    ],
)
def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, maker: Maker, present: str, said: str
) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(ConflictError, match=f"{said}.*name another"):
        require_own(tmp_path, maker)
    assert contents(tmp_path) == [present]


@pytest.mark.parametrize("maker", Maker)
def test_a_folder_of_its_own_or_an_empty_one_is_taken(tmp_path: Path, maker: Maker) -> None:
    require_own(tmp_path / "missing", maker)
    with locked(tmp_path):
        require_own(tmp_path, maker)  # killed before it wrote its marker
        write_marker(tmp_path, maker, "{}")
    (tmp_path / "logs").mkdir()
    require_own(tmp_path, maker)


def test_up_may_work_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text("")
    require_own(tmp_path, Maker.UP)


def test_one_at_a_time(tmp_path: Path) -> None:
    said = rf"another `up`.* runs .*`rootstock down {tmp_path}` stops it; --state names another"
    with locked(tmp_path), pytest.raises(ConflictError, match=said), locked(tmp_path):
        pass


def test_a_file_called_lock_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a thesis")
    with pytest.raises(ConflictError, match="is a file of something else"), locked(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == "a thesis"


def test_a_link_is_the_folder_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert state_folder(tmp_path / "link") == tmp_path / "real"


def test_home_is_no_folder_called_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder(Path("~/net")) == tmp_path / "net"


@pytest.mark.parametrize("name", ["~nobody-of-this-name/net", "$HOME/net", "a/$X"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no such user or variable"):
        state_folder(Path(name))
