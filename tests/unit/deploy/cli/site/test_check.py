"""``site check`` on real folders: what it prints, and that it refuses what the agent would."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rootstock.common.nets.spec import ImageForm
from rootstock.deploy.cli.main import main
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.load import load
from rootstock.site_agent.teacher.data_report import save_plan
from tests.support import digits_lab
from tests.support.drawn_images import cats_and_dogs, picture

SETTINGS = """
site = "cat-lab"
state = "{state}"
category = "cat"
{more}
[data]
kind = "image-folder"
path = "{images}"
{data}
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return cats_and_dogs(tmp_path / "images")


@dataclass(frozen=True)
class Check:
    """The command, run in this process."""

    images: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *options: str, more: str = "", data: str = "") -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        config, state = self.images.parent / "site.toml", self.images.parent / "state"
        config.write_text(SETTINGS.format(state=state, images=self.images, more=more, data=data))
        argv = ["rootstock", "site", "check", "--config", str(config), *options]
        self.monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self.capsys.readouterr()
        return int(end.value.code or 0), out, err

    def report(self, **settings: str) -> dict[str, Any]:
        """Return what is printed with --json."""
        return dict(json.loads(self("--json", **settings)[1]))


@pytest.fixture
def check(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Check:
    return Check(images, monkeypatch, capsys)


def widest(printed: str) -> int:
    """Return the longest line's width, but for paths, which are the operator's."""
    return max(
        len(line) for line in printed.splitlines() if not re.match("  (images|state) ", line)
    )


def test_good_images(check: Check) -> None:
    code, out, err = check()
    assert (code, err) == (0, "")
    assert widest(out) < 80
    rows = [line.split() for line in out.splitlines()]
    assert ["cat", "(category)", "24", "4", "12", "40"] in rows
    assert ["dog", "24", "4", "12", "40"] in rows
    assert out.endswith("the agent would train on these images; nothing is doubtful\n")
    assert not (check.images.parent / "state").exists()  # a look changes nothing


def test_what_is_doubtful_is_said_within_80_columns(check: Check) -> None:
    for number in range(5):
        (check.images / "cat" / f"{number}.heic").touch()
    picture(3, 150).save(check.images / "dog" / "same.png")
    code, out, _ = check()
    assert code == 0
    assert widest(out) < 80
    assert "- 5 of 45 files of 'cat' left out: .heic (5); known endings" in out
    assert out.rstrip().endswith("2 to look at")
    kinds = [finding["kind"] for finding in check.report()["findings"]]
    assert kinds == ["unknown-ending", "contradicting-twins"]


def unknown_class(images: Path) -> dict[str, str]:
    return {"data": 'class_name = "cow"'}


def unreadable(images: Path) -> dict[str, str]:
    (images / "cat" / "003.png").write_bytes(b"no image")
    return {}


def float_pictures(images: Path) -> dict[str, str]:
    Image.new("F", (32, 32), 0.5).save(images / "cat" / "f.tif")
    return {}


def too_many_samples(images: Path) -> dict[str, str]:
    return {"more": "share_samples = 49"}


def large_batch(images: Path) -> dict[str, str]:
    return {"data": "[training]\nbatch_size = 64"}


def nettailor(images: Path) -> dict[str, str]:
    return {
        "data": '[training]\nrecipe = "nettailor"\n[training.nettailor]\nheld_share = 0.01\n'
        '[training.nettailor.backbone]\npath = "b"'
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unknown_class, "the dataset has no class 'cow'; it has cat, dog"),
        (unreadable, "003.png: cannot be read as an image"),
        (float_pictures, "set data.grey_range = ["),
        (too_many_samples, "the lab has 48 training images, 24 of the category and 24 of the rest"),
        (large_batch, "48 training images are fewer than one batch of 64"),
        (nettailor, "a held share of 0.01 of 24 training images"),
    ],
)
def test_what_the_agent_would_refuse_ends_with_4(check: Check, change: Any, said: str) -> None:
    settings = change(check.images)
    code, out, err = check(**settings)
    assert code == 4
    assert err.startswith("error: ")
    assert said in err
    assert "would train" not in out
    assert said in check.report(**settings)["refusal"]


def test_a_cached_plan_gives_size_and_limits(check: Check) -> None:
    folder = check.images.parent
    plan = digits_lab.plan(folder / "blobs")
    assert check.report()["plan_known"] is False
    save_plan(folder / "state", plan)
    found = check.report()
    assert found["plan_known"] is True
    assert found["input_shape"] == [3, 32, 32]
    limit = plan.limits.max_shared_samples
    code, _, err = check(more=f"share_samples = {limit + 1}")
    assert code == 2
    assert f"the plan accepts at most {limit}" in err


def test_a_state_folder_that_cannot_be_written(check: Check) -> None:
    (check.images.parent / "state").touch()
    code, out, _ = check()
    assert code == 5
    assert "CANNOT be written" in out


def test_the_agent_reads_what_the_check_says(check: Check) -> None:
    config = DataConfig(kind="image-folder", path=check.images)
    data = load(config, "cat", ImageForm((3, 64, 64)), batch_size=4, warn=digits_lab.fail)
    classes = {each["name"]: each for each in check.report()["classes"]}
    for part, read in data.parts().items():
        assert (classes["cat"][part], classes["dog"][part]) == read.counts()
