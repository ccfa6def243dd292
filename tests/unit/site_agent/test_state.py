import json
from pathlib import Path

import pytest

from rootstock.common.errors import ConfigurationError, SchemaError
from rootstock.site_agent.lab import set_up_torch
from rootstock.site_agent.state import StatusFile, read_cursor, write_cursor
from tests.support import digits_lab


def test_the_cursor_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "cursor.json"
    assert read_cursor(path) == 0
    write_cursor(path, 1 << 40)
    assert read_cursor(path) == 1 << 40


def test_a_damaged_cursor_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "cursor.json"
    path.write_bytes(b'{"cursor": -1}')
    with pytest.raises(SchemaError, match=r"cursor\.json.*remove the file"):
        read_cursor(path)


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    config = digits_lab.config(tmp_path, device="cuda:99")
    with pytest.raises(ConfigurationError, match="device = 'cuda:99': PyTorch sees"):
        set_up_torch(config)


def test_the_status_is_always_whole_and_ends_are_not_left_out(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "status.json", "lab", "cat")
    for step in range(1, 101):
        status.progress("training", step, 100, f"epoch {step}")
        shown = json.loads((tmp_path / "status.json").read_text())
        assert shown["phase"] == "training"
    assert shown["step"] == shown["steps"] == 100
    status.progress("shipping", message="ships")
    assert json.loads((tmp_path / "status.json").read_text())["phase"] == "shipping"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_status_keeps_what_is_known_of_the_teacher(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    first = StatusFile(path, "lab", "cat")
    first.error_percent, first.outcome = 12.5, "teacher net refused: growth: taken"
    first.progress("stopped")
    for category, kept in (("cat", 12.5), ("dog", None)):
        again = StatusFile(path, "lab", category)
        assert again.error_percent == kept
        assert bool(again.outcome) == bool(again.error_percent)


def test_a_status_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(b'{"phase": 3')
    status = StatusFile(path, "lab", "cat")
    status.progress("joining")
    assert json.loads(path.read_text())["phase"] == "joining"
