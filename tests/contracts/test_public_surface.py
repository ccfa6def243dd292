"""What `import rootstock` offers to those who only use a net, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import rootstock
from rootstock.common.weights import safetensors_io
from tests.support.exported_net import Grown

EXTRAS = ("sqlalchemy", "alembic", "ray", "mlflow", "matplotlib", "boto3", "scipy", "onnx")
"""What the extras bring, and the base install lacks."""


def python(code: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_stranger_loads_an_exported_net_as_its_card_says(tmp_path: Path) -> None:
    grown = Grown(tmp_path)
    card = grown.export("sow", tmp_path / "net.safetensors")
    images_NCHW = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        expected = grown.calibrated(images_NCHW)
    safetensors_io.write(tmp_path / "tensors", {"images": images_NCHW, "logits": expected})
    told = python(
        f"import sys\nsys.modules |= dict.fromkeys({EXTRAS!r})\n"
        "import torch\nfrom safetensors.torch import load_file\n"
        "tensors = load_file('tensors')\nimages_NCHW = tensors['images']\n"
        f"{card['how_to_load']}\n"
        "print(torch.equal(logits, tensors['logits']))",
        tmp_path,
    )
    assert told == "True"


def test_importing_rootstock_is_light(tmp_path: Path) -> None:
    code = "import sys, rootstock; print('torch' in sys.modules, len(rootstock.__version__) > 0)"
    assert python(code, tmp_path) == "False True"


def test_everything_public_is_there() -> None:
    assert all(hasattr(rootstock, name) for name in rootstock.__all__)
    assert not hasattr(rootstock, "load_net")
