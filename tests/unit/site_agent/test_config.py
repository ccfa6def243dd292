from pathlib import Path

import pytest

from rootstock.common.config import load
from rootstock.common.errors import ConfigurationError
from rootstock.site_agent.config import SiteConfig

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
    ],
)
def test_data_that_does_not_agree(tmp_path: Path, line: str, says: str) -> None:
    text = GOOD if "kind" not in line else GOOD.replace('kind = "digits"', "")
    with pytest.raises(ConfigurationError, match=says):
        read(tmp_path, text + line + "\n")
