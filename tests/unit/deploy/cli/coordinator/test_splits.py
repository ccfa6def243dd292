"""`coordinator splits`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.typed_commands import rootstock

COMMAND = ("coordinator", "splits")


def test_splits_of_a_net(tmp_path: Path) -> None:
    typed = (*COMMAND, "small-vgg", "--set", "width=4", "--set", "batch_norm=true")
    told = rootstock(tmp_path, *typed, COLUMNS="80")
    assert [x.split() for x in told.splitlines() if x.startswith("  pool")] == [
        ["pool1", "4×16×16", "no", "276", "12,721"],
        ["pool2", "8×8×8", "no", "1,188", "11,809"],
        ["pool3", "16×4×4", "no", "4,740", "8,257"],
    ]
    assert max(map(len, told.splitlines())) <= 80


def test_splits_of_a_net_of_torchvision(tmp_path: Path) -> None:
    typed = (*COMMAND, "torchvision:mobilenet_v3_small", "--set", "input_size=64", "--json")
    points = json.loads(rootstock(tmp_path, *typed))["splits"]
    assert {key: points[6][key] for key in ("name", "shape", "signed", "below")} == {
        "name": "features_4",
        "shape": [40, 4, 4],
        "signed": True,
        "below": 24224,
    }
    # torchvision's 2,542,856 parameters, with 1 output of the last layer for 1,000.
    assert {point["below"] + point["above"] for point in points} == {2542856 - 999 * 1025}


def test_what_has_none_says_why(tmp_path: Path) -> None:
    said = rootstock(tmp_path, *COMMAND, "torchvision:vit_b_16", code=8)
    assert "'torchvision:vit_b_16' cannot be split: it is no chain of blocks" in said
    said = rootstock(tmp_path, *COMMAND, "small-vgg", "--set", "width", code=2)
    assert "--set width: give a key and its value" in said
    said = rootstock(tmp_path, *COMMAND, "torchvision:ResNet18", code=8)
    assert "architecture 'torchvision:ResNet18'" in said
    assert "names have 1 to 63" in said
