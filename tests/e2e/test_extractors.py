"""One task module above extractors of three architectures, as real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rootstock.deploy.federation.config import FederationConfig
from tests.support.checkout import CHECKOUT
from tests.support.federation_processes import Running, compatible_example, merged

pytestmark = pytest.mark.e2e

EXAMPLE = CHECKOUT / "deploy" / "examples" / "digits-extractors.toml"
MOBILE = {
    "name": "mobilenetv2",
    "split": "block4",
    "settings": {"input_size": 32, "output_stride": 8, "width": 0.5},
}
"""A smaller one than the example's: as wide as the plan's net at its split, so not projected."""


def three_labs() -> FederationConfig:
    """Return the example, with the smaller MobileNetV2."""
    config = compatible_example(EXAMPLE)
    zero, one, two = config.sites
    sites = (zero, one, {**two, "training": {**two["training"], "extractor": MOBILE}})
    return config.model_copy(update={"sites": sites})


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
    tree = running.tree()
    below = {name: ref.architecture.below().name for name, ref in tree.category_modules.items()}
    assert below == {"zero": "small-resnet", "one": "wide-resnet", "two": "mobilenetv2"}
    tensors = {name: ref.blob.tensors for name, ref in tree.category_modules.items()}
    assert tensors["one"]["proj.weight"].shape == (16, 64, 1, 1)
    assert "proj.weight" not in tensors["two"]
    # One task module, the founder's; g is the plan's for all.
    (head,) = tree.task_modules.values()
    assert head.submission == tree.category_modules["zero"].submission
    assert head.architecture == tree.architecture
    for category in ("one", "two"):
        edge = tree.edge(category, "classification")
        assert edge.adapter is None, edge
        assert edge.error is not None
        assert edge.error <= 20.0

    shown = running.json("net", "show")
    assert shown["extractors"] == {"one": "wide-resnet", "two": "mobilenetv2"}
    assert "other architectures: 1 mobilenetv2, 1 wide-resnet" in running.run("net", "show")
    for category, digit in (("one", 1), ("two", 2)):
        images = pictures(tmp_path / category, digit, 60)
        words = ("--task", "classification", "--category", category, *images)
        answers = running.run("net", "predict", *words)
        said = [json.loads(line)["logit"] > 0 for line in answers.splitlines()]
        right = sum(said[:60]) + sum(not yes for yes in said[60:])
        assert right >= 84, said  # of 120; half of them are right by chance
