"""Datasets behind one small interface, read through torchvision's dataset classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torchvision import datasets

from rootstock.common.errors import DataError, MissingExtraError
from rootstock.common.images import UnreadableError, centre_square
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.crops import read
from rootstock.site_agent.data.voc import VocDataset


class Dataset(Protocol):
    """A dataset: every image has a name and at most one class."""

    classes: Sequence[str]
    mirror: bool
    """Whether a mirrored image still shows the same thing."""

    def labels(
        self, wanted: frozenset[str], on_unreadable: Callable[[UnreadableError], None]
    ) -> list[tuple[str, str]]:
        """Return (name, class) of every image; class "" where it is none of `wanted`."""

    def image(self, index: int) -> Image.Image:
        """Read a square image; UnreadableError names a file that is none."""


@dataclass
class _ListedDataset:
    classes: Sequence[str]
    rows: Sequence[tuple[str, str]]
    """(name, class)."""
    image: Callable[[int], Image.Image]
    mirror: bool = True

    def labels(
        self,
        wanted: frozenset[str],
        on_unreadable: Callable[[UnreadableError], None],  # noqa: ARG002  (the list suffices)
    ) -> list[tuple[str, str]]:
        return [(key, name if name in wanted else "") for key, name in self.rows]


def open_dataset(config: DataConfig) -> Dataset:
    """Open the dataset that the configuration names; DataError if it is not there."""
    if config.kind == "digits":
        return _digits()
    root = config.path
    if root is None or not root.is_dir():
        raise DataError(f"{root}: is not a folder; set data.path to the dataset's root folder")
    if config.kind == "image-folder":
        return _folders(root)
    if config.kind == "voc":
        return VocDataset(root, config)
    kinds: dict[str, Any] = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
    }
    train = (config.image_set or "train") == "train"
    try:
        dataset = kinds[config.kind](str(root), train=train, download=config.download)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{root}: {config.kind} cannot be read ({error}); unpack its original files there, "
            "or set data.download = true"
        ) from error
    classes = [slug(name) for name in dataset.classes]
    stem = f"{config.kind}/{'train' if train else 'test'}"
    images = np.asarray(dataset.data)
    return _array(images, dataset.targets, classes, stem, mirror=config.kind != "mnist")


def _folders(root: Path) -> Dataset:
    try:
        dataset = datasets.ImageFolder(str(root), allow_empty=True)
    except FileNotFoundError as error:
        raise DataError(
            f"{root}: holds no class folders; put each class's images in a folder of its name"
        ) from error
    paths = [Path(path) for path, _ in dataset.samples]
    names = [dataset.classes[target] for _, target in dataset.samples]
    keys = [path.relative_to(root).as_posix() for path in paths]
    return _ListedDataset(
        tuple(dataset.classes),
        list(zip(keys, names, strict=True)),
        lambda index: centre_square(read(paths[index], "RGB")),
    )


def _array(
    images: Any, targets: Sequence[int], classes: Sequence[str], stem: str, *, mirror: bool
) -> Dataset:
    """Open images in memory, uint8 of N×H×W or N×H×W×3."""
    rows = [(f"{stem}/{index}", classes[int(target)]) for index, target in enumerate(targets)]
    return _ListedDataset(
        classes, rows, lambda index: Image.fromarray(np.asarray(images[index])), mirror
    )


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "data.kind = 'digits' needs scikit-learn; run: pip install 'rootstock-federation[demo]'"
        ) from error
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 8×8, values 0 to 16
    return _array(images, bunch.target, [str(d) for d in range(10)], "digits", mirror=False)


def slug(name: str) -> str:
    """Return a class's name as settings write it: ankle-boot for "Ankle boot"."""
    name = re.sub(r"^(\d) - .*$", r"\1", name)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
