"""Grey tasks of 32×32 pixels: MNIST, USPS, Fashion-MNIST, and CIFAR-10 without its colours.

Shapes: N images, S side, H/W height and width of a file's images.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import DataError, SchemaError
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.data import Task, relabelled
from tests.benchmarks.papers.shared.datasets import CIFAR10, DIGITS, Labelled

FORMAT = 1
"""Raised when images are scaled otherwise."""
_SIDE = 32
_FASHION = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
_VEHICLES = ("airplane", "automobile", "ship", "truck")
CLASSES = {
    "mnist": DIGITS,
    "usps": DIGITS,
    "fashion-mnist": _FASHION,
    "animals": tuple(name for name in CIFAR10 if name not in _VEHICLES),
    "vehicles": _VEHICLES,
    "public": CIFAR10,
}
"""Animals and vehicles are CIFAR-10's, of the images that labs have; public are those that none
has (`datasets.PUBLIC_SHARE`)."""
NAMES = tuple(CLASSES)
_IDX = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_LUMA = (299, 587, 114)
"""Red's, green's and blue's share of grey in thousandths (ITU-R BT.601)."""


def grey_task(name: str, folders: Folders) -> Task:
    """Read a task, its images scaled bilinearly to 32×32; they are kept in the cache.

    Parameters
    ----------
    folders
        With `mnist/MNIST/raw/*.gz`, `fashion-mnist/FashionMNIST/raw/*.gz`, `usps/usps_uint8.npz`
        and `cifar10-jpg`.
    """
    if name not in CLASSES:
        raise SchemaError(f"unknown task '{name}'; known are {', '.join(NAMES)}")
    parts = datasets.kept(folders, f"grey-{name}-{FORMAT}", lambda: _read(name, folders))
    photographs = name not in ("mnist", "usps", "fashion-mnist")
    return Task(name, CLASSES[name], parts["training"], parts["test"], photographs)


def coloured(grey: Task) -> Task:
    """Give grey images three equal channels."""
    training, test = (
        Labelled(part.images_NCSS.expand(-1, 3, -1, -1), part.classes_N)
        for part in (grey.training, grey.test)
    )
    return replace(grey, training=training, test=test)


def _read(name: str, folders: Folders) -> dict[str, Labelled]:
    if name in _IDX:
        folder = folders.root / name / _IDX[name] / "raw"
        read = {
            "training": (_idx(folder, "train-images-idx3"), _idx(folder, "train-labels-idx1")),
            "test": (_idx(folder, "t10k-images-idx3"), _idx(folder, "t10k-labels-idx1")),
        }
    elif name == "usps":
        read = _usps(folders.root / "usps" / "usps_uint8.npz")
    else:
        return _cifar(name, folders)
    return {
        part: Labelled(scaled(images_NHW), classes_N.long())
        for part, (images_NHW, classes_N) in read.items()
    }


def scaled(images_NHW: Tensor) -> Tensor:
    """Scale uint8 images bilinearly to (N, 1, 32, 32), uint8."""
    parts = [
        F.interpolate(part[:, None].float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)
        for part in torch.split(images_NHW, 4096)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def _idx(folder: Path, stem: str) -> Tensor:
    """Read a gzipped IDX file of bytes: a magic number, sizes, values (LeCun's format)."""
    path = folder / f"{stem}-ubyte.gz"
    try:
        with gzip.open(path) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; give --root the folder that holds it") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); fetch it again") from error
    kind, axes = data[2:4]
    sizes = np.frombuffer(data, ">u4", axes, 4).tolist()
    start = 4 + 4 * axes
    if kind != 8 or len(data) - start != int(np.prod(sizes)):
        raise DataError(
            f"{path} says it holds bytes of shape {sizes} and holds {len(data) - start} of them; "
            "fetch it again"
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8, -1, start).reshape(sizes).copy())


def _usps(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing; give --root the folder that holds it: x_train, y_train, x_test "
            "and y_test, uint8, 16×16"
        )
    with np.load(path, allow_pickle=False) as arrays:
        return {
            part: (
                torch.from_numpy(arrays[f"x_{short}"].reshape(-1, 16, 16)),
                torch.from_numpy(arrays[f"y_{short}"]),
            )
            for part, short in (("training", "train"), ("test", "test"))
        }


def _cifar(name: str, folders: Folders) -> dict[str, Labelled]:
    dataset = datasets.load("cifar10", folders)
    assert dataset.public is not None  # CIFAR-10's are set apart by `load`
    training = dataset.public if name == "public" else dataset.training
    weights_C11 = torch.tensor(_LUMA).view(3, 1, 1)
    found = {}
    for part, shown in (("training", training), ("test", dataset.test)):
        own = relabelled(shown, CLASSES[name])
        luma_NHW = (own.images_NCSS.int() * weights_C11).sum(1) // 1000
        found[part] = Labelled(luma_NHW.to(torch.uint8)[:, None], own.classes_N)
    return found
