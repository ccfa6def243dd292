from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rootstock.common.errors import ConfigurationError
from rootstock.deploy.federation.config import Federation, merge, read, resolve
from tests.support.checkout import CHECKOUT

EXAMPLES = CHECKOUT / "deploy" / "examples"

MINIMAL = """
net = "tiny"
[coordinator.plan.architecture]
name = "small-vgg"
split = "pool1"
[site.data]
kind = "image-folder"
path = "images"
[site.training]
epochs = 3
[[sites]]
site = "a-lab"
category = "cat"
[[sites]]
site = "b-lab"
category = "dog"
training = { epochs = 4 }
"""


def _resolve(path: Path, **options: Any) -> Federation:
    return resolve(
        read(path),
        source=str(path),
        state=path.parent / "state",
        coordinator_port=50051,
        mlflow_uri="http://127.0.0.1:5000",
        **options,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_valid(example: Path) -> None:
    federation = _resolve(example)
    three = example.stem in ("digits-extractors", "digits-l2t", "voc-recipes")
    assert len(federation.sites) == (3 if three else 5)


def test_a_lab_has_what_all_share_and_its_own_on_top(file: Path) -> None:
    a, b = _resolve(file).sites
    assert [a.training.epochs, b.training.epochs] == [3, 4]
    assert a.state != b.state


def test_some_labs_alone(file: Path) -> None:
    federation = _resolve(file)
    assert [site.site for site in federation.only(["b-lab"]).sites] == ["b-lab"]
    with pytest.raises(ConfigurationError, match=r"no lab 'c-lab'; there are a-lab, b-lab"):
        federation.only(["a-lab", "c-lab"])


def test_a_relative_data_path_is_taken_from_the_file(file: Path, tmp_path: Path) -> None:
    assert tmp_path / "images" == _resolve(file).sites[0].data.path


NETS = """
[site.training]
recipe = "l2t"
optimiser = "sgd"
epochs = 3
[[site.training.l2t.sources]]
name = "old"
kind = "export"
path = "nets/old.safetensors"
[[site.training.l2t.sources]]
name = "older"
kind = "torchvision"
model = "resnet18"
path = "/srv/older.safetensors"
"""


def test_relative_paths_of_nets_are_taken_from_the_file(file: Path, tmp_path: Path) -> None:
    backbone = '{ nettailor = { backbone = { kind = "export", path = "../b.safetensors" } } }'
    text = MINIMAL.replace("[site.training]\nepochs = 3\n", NETS)
    file.write_text(text.replace("{ epochs = 4 }", backbone))
    a, b = _resolve(file).sites
    paths = [source.path for source in a.training.l2t.sources]
    assert paths == [tmp_path / "nets" / "old.safetensors", Path("/srv/older.safetensors")]
    assert b.training.nettailor.backbone is not None
    assert b.training.nettailor.backbone.path == tmp_path.parent / "b.safetensors"


@pytest.mark.parametrize(
    "table",
    ["training = 3", "training.l2t = 3", "training.l2t.sources = 3", "training.l2t.sources = [3]"],
)
def test_a_table_of_another_kind_is_an_error_of_its_key(file: Path, table: str) -> None:
    file.write_text(MINIMAL.replace("training = { epochs = 4 }", table))
    with pytest.raises(ConfigurationError, match=r"sites\[1\]: .*'training"):
        _resolve(file)


def test_a_data_path_can_be_replaced_for_all(file: Path, tmp_path: Path) -> None:
    sites = _resolve(file, data=tmp_path / "elsewhere").sites
    assert {tmp_path / "elsewhere"} == {site.data.path for site in sites}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 3", "epoch = 3", r"sites\[0\]: unknown key 'training\.epoch'.*'epochs'"),
        ("epochs = 3", "epochs = 0", r"'training\.epochs' = 0"),
        ('site = "b-lab"', 'site = "a-lab"', "two labs are named 'a-lab'"),
        ('category = "dog"', 'category = "cat"', "two labs have category 'cat', and the net takes"),
        ('split = "pool1"', "", r"'plan\.architecture\.split' is missing"),
        ('net = "tiny"', "net = tiny", "is not TOML"),
        ('site = "a-lab"', 'site = "../a"', r"'site' = '\.\./a'"),
        ("[site.data]", "[sight]\nx=1\n[site.data]", "unknown key 'sight'; did you mean 'site'"),
    ],
)
def test_an_error_names_the_file_the_key_and_the_remedy(
    file: Path, old: str, new: str, message: str
) -> None:
    _resolve(file)  # whole before
    file.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=message) as caught:
        _resolve(file)
    assert str(file) in str(caught.value)


def test_tables_are_laid_on_top_key_by_key() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge(base, {"a": {"y": 4}, "c": 5}) == {"a": {"x": 1, "y": 4}, "b": 3, "c": 5}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3}
