from pathlib import Path

import pytest

from rootstock.common.config import load
from rootstock.common.errors import ConfigurationError
from rootstock.site_agent.config import DataConfig, SiteConfig

GOOD = """
site = "lab"
state = "state"
category = "cat"
[data]
kind = "digits"
"""


def read(tmp_path: Path, text: str) -> SiteConfig:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return load(path, SiteConfig)


def test_defaults_share_nothing(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.share_samples == 0
    assert config.data.reserve == 0
    assert config.statistics.feature_norm


def test_an_unknown_key_names_the_close_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'share_sample'.*did you mean 'share_samples'"):
        read(tmp_path, "share_sample = 3\n" + GOOD)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("part = 3\nparts = 2", "part 3 is above parts 2"),
        ("reserve = 1.0", "less than 1"),
        ('kind = "voc"', "needs 'path'"),
        ('image_set = "val"', "one of train, test"),
        ("grey_range = [0, 4095]", "'digits' has 8-bit images; remove grey_range"),
        ("grey_range = [9, 9]", "give \\[black, white\\], the smaller number first"),
        ("grey_range = [0, inf]", "finite"),
    ],
)
def test_data_that_does_not_agree(tmp_path: Path, line: str, says: str) -> None:
    text = GOOD if "kind" not in line else GOOD.replace('kind = "digits"', "")
    with pytest.raises(ConfigurationError, match=says):
        read(tmp_path, text + line + "\n")


L2T = """
[training]
recipe = "l2t"
optimiser = "sgd"
learning_rate = 0.05
[[training.l2t.sources]]
name = "old"
kind = "export"
path = "/old.safetensors"
"""
NETTAILOR = """
[training]
recipe = "nettailor"
epochs = 5
[training.nettailor]
tolerance = 1.0
[training.nettailor.backbone]
path = "/b.safetensors"
"""
COMPATIBLE = """
[training]
recipe = "compatible"
"""


@pytest.mark.parametrize(
    ("training", "digest"),
    [
        ("", "12e00a11b10f550eb1f3ccacd9c771e986a6fc88ea3914dec3caf38183057c0b"),
        (
            "[training.l2t]\nbeta = 0.9\n[training.nettailor]\ntolerance = 2.0\n",
            "12e00a11b10f550eb1f3ccacd9c771e986a6fc88ea3914dec3caf38183057c0b",
        ),
        (COMPATIBLE, "adc7cf4a18ee7478eeecd14cb298db2bd0c8e54c635dbca131847fcbac5dcc19"),
        (L2T, "8a1f00a633b4e85b7d37b34fb296b1aabbb4c167506eb9673a786acbced8aaaa"),
        (NETTAILOR, "cdf8c69ce42f0733295719c38f9c92a87ca0c42bac731c061134a85e54171d0a"),
    ],
    ids=["supervised", "tables of other recipes", "compatible", "l2t", "nettailor"],
)
def test_a_run_s_digest_stays_over_releases(tmp_path: Path, training: str, digest: str) -> None:
    """Else every lab would train its teacher again, and ship another one."""
    config = SiteConfig.model_validate(
        read(tmp_path, GOOD + training).model_dump() | {"state": "/state"}
    )
    assert config.run_digest("ab" * 32) == digest


@pytest.mark.parametrize(
    "where", [{"path": "/moved"}, {"skip_unreadable": True}, {"download": True}]
)
def test_where_images_lie_makes_no_other_run(tmp_path: Path, where: dict[str, object]) -> None:
    config = read(tmp_path, GOOD)
    data = DataConfig.model_validate(config.data.model_dump() | where)
    moved = config.model_copy(update={"data": data})
    assert moved.run_digest("ab" * 32) == config.run_digest("ab" * 32)
    others = DataConfig.model_validate(config.data.model_dump() | {"class_name": "1"})
    other = config.model_copy(update={"data": others})
    assert other.run_digest("ab" * 32) != config.run_digest("ab" * 32)


@pytest.mark.parametrize(
    ("training", "own"),
    [
        ("", {}),
        (COMPATIBLE, {"compatible.task_weight": 1.0, "compatible.batch_norm": "running"}),
        (L2T, {"l2t.pairs": "all", "l2t.inner_steps": 2}),
        (NETTAILOR, {"nettailor.tolerance": 1.0, "nettailor.student_epochs": 20}),
    ],
)
def test_a_manifest_lists_the_settings_of_the_recipe_and_no_path(
    tmp_path: Path, training: str, own: dict[str, object]
) -> None:
    settings = read(tmp_path, GOOD + training).training.describe()
    assert settings["epochs"] == (5 if training == NETTAILOR else 30)
    assert settings["augment.shift"] == 0.06
    assert own.items() <= settings.items()
    prefixes = {key.partition(".")[0] for key in settings if "." in key} - {"augment"}
    assert prefixes == {key.partition(".")[0] for key in own}
    assert not any("safetensors" in str(value) for value in settings.values())


@pytest.mark.parametrize(
    ("training", "says"),
    [
        (L2T, "recipe 'l2t' trains all layers; take training.frozen"),
        (
            "[training]\nrecipe = 'compatible'\n"
            "[training.compatible]\nbatch_norm = 're-estimated'\n",
            "sets all of BatchNorm's statistics anew",
        ),
        (
            "[training]\n[training.extractor]\nname = 'small-resnet'\nsplit = 'block1_1'\n",
            "an extractor begins with weights that are drawn",
        ),
    ],
)
def test_what_is_frozen_is_the_plan_s_start(tmp_path: Path, training: str, says: str) -> None:
    first, rest = training.split("[training]\n", 1)
    text = f"{first}[training]\nfrozen = 'block1'\n{rest}".removesuffix("[training]\n")
    with pytest.raises(ConfigurationError, match=says):
        read(tmp_path, GOOD + text)
