"""``rootstock site doctor`` against a coordinator that serves, and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from rootstock.deploy.cli.commands import app
from tests.support.coordinator_server import Running
from tests.support.typed_commands import invite, rootstock


@pytest.fixture
def lab(config: Path, tmp_path: Path) -> Path:
    """A lab that has joined, as its two commands leave it."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / name / "one.png")
    folder = tmp_path / "lab"
    words = invite(config, "cat-lab")["command"].split()[1:]
    rootstock(folder, *words, "--category", "cat", "--data", str(tmp_path / "images"))
    return folder


def examined(lab: Path, code: int) -> dict[str, Any]:
    """Return what was found, by check."""
    words = ["site", "doctor", "--config", str(lab / "site.toml"), "--json"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == code, ended.output
    said = json.loads(ended.stdout)
    assert said["runs"] is (code == 0)
    return {check["name"]: (check["verdict"], check["found"]) for check in said["checks"]}


def change(lab: Path, old: str, new: str) -> None:
    path = lab / "site.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_lab_that_can_run_hears_so(lab: Path, coordinator: Running) -> None:
    found = examined(lab, 0)
    assert "stops" not in {verdict for verdict, _ in found.values()}
    assert found["coordinator"][1].startswith("serves: small-vgg split at pool")
    assert found["certificate"][1].startswith("cat-lab of animals, for 89 days")
    assert found["address"] == ("well", f"{coordinator.address} (127.0.0.1) answers")
    assert not (lab / "rootstock-state" / "agent.log").exists()  # nothing has run


def test_a_coordinator_that_is_gone_is_told_once(lab: Path, coordinator: Running) -> None:
    coordinator.stop()
    found = examined(lab, 1)
    assert found["address"][0] == "stops"
    assert "check that the coordinator runs there" in found["address"][1]
    assert found["coordinator"] == ("stops", "not asked: what is above is in the way")
    assert found["certificate"][0] == "well"


@pytest.mark.parametrize(
    ("old", "new", "check", "told"),
    [
        ('category = "cat"', 'category = "cow"', "images", "'cow'"),
        ('coordinator = "127', 'coordinator = "nowhere.invalid:1" # "127', "address", "no address"),
        ('site = "cat-lab"', 'site = "dog-lab"', "certificate", "is the certificate of 'cat-lab'"),
    ],
)
def test_what_stops_an_agent_is_named_with_the_remedy(
    lab: Path, old: str, new: str, check: str, told: str
) -> None:
    change(lab, old, new)
    verdict, found = examined(lab, 1)[check]
    assert verdict == "stops"
    assert told in found


def test_a_lab_that_the_net_has_no_room_for_hears_so(lab: Path) -> None:
    change(lab, "share_samples = 0", 'share_samples = 0\ntasks = ["nosuch"]')
    verdict, told = examined(lab, 1)["coordinator"]
    assert verdict == "stops"
    assert "no room for a teacher net that is trained now: growth: task 'nosuch' is not one" in told


def test_a_terminal_gets_80_columns(lab: Path) -> None:
    change(lab, 'coordinator = "127', 'coordinator = "nowhere.invalid:1" # "127')
    words = ["site", "doctor", "--config", str(lab / "site.toml")]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 1
    assert max(len(line) for line in ended.stdout.splitlines()) < 80
