"""predict on pictures in files, against the composed net fed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.common.errors import ConfigurationError, DataError, NotFoundError
from rootstock.common.images import normalise
from rootstock.common.nets.spec import ImageForm
from rootstock.coordinator.net.compose import compose
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data import load as lab
from tests.support.grown_net import Command, GrownNet


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Photographs of no common size and mode."""
    random = np.random.default_rng(0)
    paths = []
    for place, (mode, width, height) in enumerate(
        [("RGB", 48, 40), ("L", 32, 32), ("RGBA", 33, 90)]
    ):
        channels = len(mode)
        values = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
        paths.append(tmp_path / f"picture-{place}.png")
        Image.fromarray(values.squeeze()).save(paths[-1])
    return paths


def rows(printed: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in printed.splitlines()]


def predict(grown: GrownNet, command: Command, *argv: object) -> list[dict[str, object]]:
    return rows(command.text("net", "predict", "-c", grown.config, *argv))


def by_hand(path: Path) -> torch.Tensor:
    """The net's input: the centre square, RGB on white, 32 × 32."""
    with Image.open(path) as image:
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
        picture = picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    array = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32)
    return (torch.from_numpy(array).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25


def test_one_category_is_asked(grown: GrownNet, command: Command, pictures: list[Path]) -> None:
    answers = predict(grown, command, "--category", "dog", "--task", "classification", *pictures)
    net = compose(grown.tree, grown.store, "dog", "classification")
    assert [row["image"] for row in answers] == [str(path) for path in pictures]
    for row, path in zip(answers, pictures, strict=True):
        logit = net(by_hand(path)).item()
        assert row["logit"] == pytest.approx(logit, abs=1e-5)
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
        assert (row["category"], row["task"]) == ("dog", "classification")
        assert "ranking" not in row


def test_all_categories_are_ranked_by_their_calibrated_probability(
    grown: GrownNet, command: Command, pictures: list[Path]
) -> None:
    answers = predict(grown, command, "--task", "classification", *pictures)
    for row, path in zip(answers, pictures, strict=True):
        expected = {
            name: compose(grown.tree, grown.store, name, "classification")(by_hand(path)).item()
            for name in ("cat", "cow", "dog")
        }
        ranking = row["ranking"]
        assert isinstance(ranking, list)
        assert [score["category"] for score in ranking] == sorted(
            expected, key=lambda name: -expected[name]
        )
        assert {score["category"]: score["logit"] for score in ranking} == pytest.approx(
            expected, abs=1e-5
        )
        assert row["category"] == ranking[0]["category"]


def test_pictures_are_fed_exactly_as_a_lab_feeds_them(
    grown: GrownNet, command: Command, pictures: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "lab"
    for number, side in enumerate(("cat", "rest")):
        (folder / side).mkdir(parents=True)
        for place in range(9):
            with Image.open(pictures[place % 3]) as image:
                turned = image.rotate(20 * place + 10 * number, expand=True)
                turned.save(folder / side / f"{side}{place}.png")
    config = DataConfig(kind="image-folder", path=folder)
    data = lab.load(config, "cat", ImageForm((3, 32, 32)), batch_size=1, warn=print)
    net = compose(grown.tree, grown.store, "cat", "classification")
    lab_logits = net(normalise(data.validation.images_NCHW)).flatten().tolist()
    paths = [folder / key for key in data.validation.keys]
    answers = predict(grown, command, "--category", "cat", "--task", "classification", *paths)
    assert [row["logit"] for row in answers] == pytest.approx(lab_logits, abs=1e-6)


def test_more_pictures_than_a_batch_stay_in_order(
    grown: GrownNet, command: Command, pictures: list[Path]
) -> None:
    many = [pictures[place % 3] for place in range(70)]
    answers = predict(grown, command, "--category", "cat", "--task", "classification", *many)
    assert [row["image"] for row in answers] == [str(path) for path in many]
    logits = [row["logit"] for row in answers]
    assert logits[:3] * 23 == pytest.approx(logits[:69], abs=1e-5)
    assert len({round(float(str(logit)), 4) for logit in logits}) == 3


def test_a_file_that_is_no_image_keeps_none_of_the_others_back(
    grown: GrownNet, command: Command, pictures: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    text, cut, missing = tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "missing.png"
    text.write_text("no image")
    cut.write_bytes(pictures[0].read_bytes()[:200])
    paths = [text, pictures[0], cut, pictures[1], missing, tmp_path]
    with pytest.raises(DataError, match="4 of 6 files cannot be read") as raised:
        predict(grown, command, "--category", "cat", "--task", "classification", *paths)
    assert raised.value.exit_code == 4
    answers = rows(capsys.readouterr().out)
    assert ["error" in row for row in answers] == [True, False, True, False, True, True]
    assert "text.png: cannot be read as an image" in str(answers[0]["error"])
    assert "logit" not in answers[0]


def test_a_picture_with_too_many_pixels_is_not_read(
    grown: GrownNet, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (40, 40)).save(small)
    Image.new("RGB", (50, 50)).save(large)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(DataError, match="1 of 2"):
        predict(grown, command, "--category", "cat", "--task", "classification", small, large)
    answers = rows(capsys.readouterr().out)
    assert "logit" in answers[0]
    assert "replace it by a smaller one" in str(answers[1]["error"])


def test_a_segmentation_says_the_share_of_pixels_and_draws_it(
    grown: GrownNet, command: Command, pictures: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "overlays"
    answers = predict(
        grown, command, "--category", "cow", "--task", "segmentation",
        "--overlay", folder, *pictures, pictures[0],
    )  # fmt: skip
    net = compose(grown.tree, grown.store, "cow", "segmentation")
    for row, path in zip(answers, [*pictures, pictures[0]], strict=True):
        y_NCHW = net(by_hand(path))
        assert y_NCHW.shape == (1, 1, 32, 32)
        assert row["share"] == float((y_NCHW > 0).float().mean())
    names = [Path(str(row["overlay"])).name for row in answers]
    assert names == [
        "picture-0.overlay.png",
        "picture-1.overlay.png",
        "picture-2.overlay.png",
        "picture-0-2.overlay.png",
    ]
    with Image.open(folder / names[0]) as overlay:
        assert overlay.size == (256, 256)
        tinted = np.asarray(overlay).astype(int)
    with Image.open(pictures[0]) as image:
        square = image.crop((4, 0, 44, 40)).resize((256, 256), Image.Resampling.BILINEAR)
    changed = (tinted != np.asarray(square).astype(int)).any(2).mean()
    assert changed == pytest.approx(answers[0]["share"], abs=0.02)


def test_of_all_categories_each_pixel_goes_to_the_most_probable(
    grown: GrownNet, command: Command, pictures: list[Path]
) -> None:
    (row,) = predict(grown, command, "--task", "segmentation", pictures[0])
    maps = torch.cat(
        [
            compose(grown.tree, grown.store, name, "segmentation")(by_hand(pictures[0]))[:, 0]
            for name in ("cat", "cow")
        ]
    )
    claimed = maps.max(0)
    ranking = row["ranking"]
    assert isinstance(ranking, list)
    for score in ranking:
        k = ("cat", "cow").index(score["category"])
        expected = ((claimed.indices == k) & (claimed.values > 0)).float().mean()
        assert score["share"] == pytest.approx(float(expected), abs=1e-6)
    assert sum(score["share"] for score in ranking) <= 1


def test_what_is_not_joined_is_named(
    grown: GrownNet, command: Command, pictures: list[Path]
) -> None:
    with pytest.raises(NotFoundError, match="'dog' is not joined to task 'segmentation'; joined"):
        predict(grown, command, "--category", "dog", "--task", "segmentation", pictures[0])
    with pytest.raises(NotFoundError, match="no task module 'counting'; it has: classification"):
        predict(grown, command, "--task", "counting", pictures[0])


def test_a_classification_has_no_overlay(
    grown: GrownNet, command: Command, pictures: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="gives one number a picture, no map"):
        predict(grown, command, "--task", "classification", "--overlay", tmp_path, pictures[0])


def test_deep_grey_is_read_by_its_range(
    grown: GrownNet, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(1).integers(0, 256, (32, 32)).astype(np.uint8)
    plain, wide, twelve, real = (tmp_path / f"{name}.tif" for name in ("8", "16", "12", "float"))
    Image.fromarray(values).save(plain)
    Image.fromarray(values.astype(np.uint16) * 256).save(wide)
    Image.fromarray(values.astype(np.uint16) * 16).save(twelve)
    Image.fromarray(values.astype(np.float32)).save(real)
    asked = ("--category", "cat", "--task", "classification")
    same, also = predict(grown, command, *asked, plain, wide)
    assert same["logit"] == pytest.approx(also["logit"], abs=1e-6)
    with pytest.raises(DataError, match="1 of 2 files"):
        predict(grown, command, *asked, twelve, real)
    printed = capsys.readouterr()
    dark, refused = rows(printed.out)
    assert dark["logit"] != same["logit"]
    assert "set --grey-range 0 4095" in printed.err
    assert "set --grey-range 0 255" in str(refused["error"])
    (ranged,) = predict(grown, command, *asked, "--grey-range", 0, 4095, twelve)
    assert ranged["logit"] == pytest.approx(same["logit"], abs=1e-6)
    (ranged,) = predict(grown, command, *asked, "--grey-range", 0, 255, real)
    assert ranged["logit"] == pytest.approx(same["logit"], abs=0.1)
