"""Datasets behind one small interface, read through torchvision's dataset classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torchvision import datasets

from rootstock.common.errors import DataError, MissingExtraError
from rootstock.common.images.decode import UnreadableError, centre_square
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.crops import read
from rootstock.site_agent.data.voc import VocSource


class Source(Protocol):
    """A dataset: every image has a name and at most one class."""

    mirror: bool
    """Whether a mirrored image still shows the same thing."""

    def classes(self) -> Sequence[str]:
        """Return the classes that the dataset knows."""

    def labels(
        self, wanted: frozenset[str], on_unreadable: Callable[[UnreadableError], None]
    ) -> list[tuple[str, str]]:
        """Return (name, class) of every image; class "" where it is none of `wanted`."""

    def image(self, index: int) -> Image.Image:
        """Read a square image; UnreadableError names a file that is none."""


class ArraySource:
    """A dataset that torchvision or scikit-learn holds in memory as an array."""

    def __init__(
        self,
        images: Any,
        targets: Sequence[int],
        classes: Sequence[str],
        stem: str,
        *,
        mirror: bool,
    ) -> None:
        self._images = images  # N×H×W or N×H×W×3, uint8
        self._targets = targets
        self._classes = tuple(classes)
        self._stem = stem
        self.mirror = mirror

    def classes(self) -> Sequence[str]:
        """Return the classes that the dataset knows."""
        return self._classes

    def labels(
        self,
        wanted: frozenset[str],
        on_unreadable: Callable[[UnreadableError], None],  # noqa: ARG002  (arrays are readable)
    ) -> list[tuple[str, str]]:
        """Return (name, class) of every image; class "" where it is none of `wanted`."""
        names = (self._classes[int(target)] for target in self._targets)
        return [
            (f"{self._stem}/{index}", name if name in wanted else "")
            for index, name in enumerate(names)
        ]

    def image(self, index: int) -> Image.Image:
        """Return one image."""
        return Image.fromarray(np.asarray(self._images[index]))


class FolderSource:
    """One folder a class, through torchvision's ImageFolder."""

    mirror = True

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            self._dataset = datasets.ImageFolder(str(root), allow_empty=True)
        except FileNotFoundError as error:
            raise DataError(
                f"{root}: holds no class folders; put each class's images in a folder of its name"
            ) from error

    def classes(self) -> Sequence[str]:
        """Return the folders' names."""
        return tuple(self._dataset.classes)

    def labels(
        self,
        wanted: frozenset[str],
        on_unreadable: Callable[[UnreadableError], None],  # noqa: ARG002  (names suffice)
    ) -> list[tuple[str, str]]:
        """Return (path in the folder, class) of every image."""
        rows = []
        for path, target in self._dataset.samples:
            name = self._dataset.classes[target]
            key = Path(path).relative_to(self._root).as_posix()
            rows.append((key, name if name in wanted else ""))
        return rows

    def image(self, index: int) -> Image.Image:
        """Read the centre square of one image."""
        path = Path(self._dataset.samples[index][0])
        return centre_square(read(path, "RGB"))


def open_source(config: DataConfig) -> Source:
    """Open the dataset that the configuration names; DataError if it is not there."""
    if config.kind == "digits":
        return _digits()
    root = config.path
    if root is None or not root.is_dir():
        raise DataError(f"{root}: is not a folder; set data.path to the dataset's root folder")
    if config.kind == "image-folder":
        return FolderSource(root)
    if config.kind == "voc":
        return VocSource(root, config)
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
    return ArraySource(images, dataset.targets, classes, stem, mirror=config.kind != "mnist")


def _digits() -> ArraySource:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "data.kind = 'digits' needs scikit-learn; run: pip install 'rootstock-federation[demo]'"
        ) from error
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 8×8, values 0 to 16
    return ArraySource(images, bunch.target, [str(d) for d in range(10)], "digits", mirror=False)


def slug(name: str) -> str:
    """Return a class's name as settings write it: ankle-boot for "Ankle boot"."""
    name = re.sub(r"^(\d) - .*$", r"\1", name)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
