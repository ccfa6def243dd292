"""One task module above extractors of three architectures, as real processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from common.nets.graph import NetTree
from coordinator.view import NetView
from deploy.federation.config import FederationConfig, read
from tests.e2e.federation import ROOTSTOCK, Running, merged

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "digits-extractors.toml"
MOBILE = {
    "name": "mobilenetv2",
    "split": "block4",
    "settings": {"input_size": 32, "output_stride": 8, "width": 0.5},
}
"""A smaller one than the example's: as wide as the plan's net at its split, so not brought."""


def three_labs() -> FederationConfig:
    """Return the example, with fewer epochs and a bound that tells the recipes apart.

    Labs that are not compatible have errors of 40% and more with no adapter.
    """
    config = read(EXAMPLE)
    site = {**config.site, "training": {**config.site["training"], "epochs": 12}}
    coordinator = {**config.coordinator}
    coordinator["acceptance"] = {**coordinator["acceptance"], "max_above_teacher": 15.0}
    zero, one, two = config.sites
    sites = (zero, one, {**two, "training": {**two["training"], "extractor": MOBILE}})
    return config.model_copy(update={"site": site, "coordinator": coordinator, "sites": sites})


def tree_of(running: Running) -> NetTree:
    with NetView.open(running.coordinator) as view:
        assert view.head is not None
        return view.tree(view.head)


def net(running: Running, *words: str) -> str:
    config = running.state / "configuration" / "coordinator.toml"
    command = [*ROOTSTOCK, "net", words[0], "--config", str(config), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(folder: Path, digit: int, count: int) -> list[str]:
    """Write handwritten digits: so many of the digit, then as many of 5 to 9."""
    folder.mkdir()
    data = load_digits()
    chosen = [
        *np.flatnonzero(data.target == digit)[:count],
        *np.flatnonzero(data.target >= 5)[:count],
    ]
    paths = []
    for place, index in enumerate(chosen):
        paths.append(str(folder / f"{place}.png"))
        Image.fromarray(np.round(data.images[index] * (255 / 16)).astype(np.uint8)).save(paths[-1])
    return paths


def test_extractors_of_three_architectures_join_one_task_module(
    federation: Callable[[FederationConfig], Running], tmp_path: Path
) -> None:
    running = federation(three_labs())
    running.start_coordinator()
    running.until("the coordinator", lambda _: True)
    for name in ("lab-one", "lab-two", "lab-zero"):
        running.start_site(name)
    for category in ("zero", "one", "two"):
        running.until(f"the merge of {category}", merged(category))
    tree = tree_of(running)
    below = {name: ref.architecture.below().name for name, ref in tree.category_modules.items()}
    assert below == {"zero": "small-resnet", "one": "wide-resnet", "two": "mobilenetv2"}
    tensors = {name: ref.blob.tensors for name, ref in tree.category_modules.items()}
    assert tensors["one"]["bring.weight"].shape == (16, 64, 1, 1)
    assert "bring.weight" not in tensors["two"]
    # One task module, the founder's; g is the plan's for all.
    (head,) = tree.task_modules.values()
    assert head.submission == tree.category_modules["zero"].submission
    assert head.architecture == tree.architecture
    for category in ("one", "two"):
        edge = tree.edge(category, "classification")
        assert edge.adapter is None, edge
        assert edge.error is not None
        assert edge.error <= 20.0

    shown = json.loads(net(running, "show", "--json"))
    assert shown["extractors"] == {"one": "wide-resnet", "two": "mobilenetv2"}
    assert "other architectures: 1 mobilenetv2, 1 wide-resnet" in net(running, "show")
    for category, digit in (("one", 1), ("two", 2)):
        images = pictures(tmp_path / category, digit, 60)
        answers = net(
            running, "predict", "--task", "classification", "--category", category, *images
        )
        said = [json.loads(line)["logit"] > 0 for line in answers.splitlines()]
        right = sum(said[:60]) + sum(not yes for yes in said[60:])
        assert right >= 84, said  # of 120; half of them are right by chance
