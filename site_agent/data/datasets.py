"""Datasets behind one small interface: a lab's own files, and torchvision's dataset classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torchvision import datasets

from rootstock.common.errors import DataError, MissingExtraError
from rootstock.common.image_files.decoding import UnreadableError
from rootstock.common.image_files.findings import Finding, FindingKind, examples, printable
from rootstock.common.image_files.listing import LeftOut, identity, list_images, subfolders
from rootstock.common.image_files.reading import ImageReader
from rootstock.common.images import centre_square
from rootstock.site_agent.config import DataConfig
from rootstock.site_agent.data.class_names import slug
from rootstock.site_agent.data.crops import read
from rootstock.site_agent.data.voc import VocDataset


class Dataset(Protocol):
    """A dataset: every image has a name and at most one class."""

    classes: Sequence[str]
    mirror: bool
    """Whether a mirrored image still shows the same thing."""
    reader: ImageReader | None
    """What reads the lab's own files; None for published datasets, which are taken as they are."""

    def labels(
        self, wanted: frozenset[str], on_unreadable: Callable[[UnreadableError], None]
    ) -> list[tuple[str, str]]:
        """Return (name, class) of every image; class "" where it is none of `wanted`."""

    def image(self, index: int) -> Image.Image:
        """Read a square image; UnreadableError names a file that is none."""

    def findings(self) -> list[Finding]:
        """Return what there is to say of files that are not among the images, after `labels`."""


@dataclass
class _ListedDataset:
    classes: Sequence[str]
    rows: Sequence[tuple[str, str]]
    """(name, class)."""
    image: Callable[[int], Image.Image]
    mirror: bool = True
    reader: ImageReader | None = None

    def labels(
        self,
        wanted: frozenset[str],
        on_unreadable: Callable[[UnreadableError], None],  # noqa: ARG002  (the list suffices)
    ) -> list[tuple[str, str]]:
        return [(key, name if name in wanted else "") for key, name in self.rows]

    def findings(self) -> list[Finding]:
        return []


class FolderDataset:
    """A folder of class folders, each of which is read at any depth."""

    mirror = True

    def __init__(self, root: Path, config: DataConfig) -> None:
        self._root = root
        self._folders, self._beside = subfolders(root)
        self.classes: Sequence[str] = [folder.name for folder in self._folders]
        if not self.classes:
            hidden = self._beside.left_out[LeftOut.SYSTEM]
            raise DataError(
                f"{printable(root)}: holds no class folders; put each class's images in a folder "
                "of its name"
                + (f" (left out as the system's: {examples(hidden)})" if hidden else "")
            )
        self.reader: ImageReader | None = ImageReader(config.grey_range)
        self._reader = self.reader
        self._paths: list[Path] = []
        self._findings = self._at_the_root()

    def labels(
        self,
        wanted: frozenset[str],
        on_unreadable: Callable[[UnreadableError], None],  # noqa: ARG002  (the list suffices)
    ) -> list[tuple[str, str]]:
        """Return (path below the root, class) of the images of the wanted classes."""
        # Pictures in another class's folder are that class's, whatever link leads there.
        others = frozenset((identity(self._root), *map(identity, self._folders)))
        rows: list[tuple[str, str]] = []
        self._paths, self._findings = [], self._at_the_root()
        for folder in self._folders:
            if folder.name in wanted:
                listing = list_images(folder, others - {identity(folder)})
                name = folder.name
                self._findings += listing.findings(f"'{printable(name)}'", self._root, name)
                self._paths += listing.paths
                rows += [(path.relative_to(self._root).as_posix(), name) for path in listing.paths]
        return rows

    def image(self, index: int) -> Image.Image:
        """Read the centre square of an image."""
        path = self._paths[index]
        name = path.relative_to(self._root).as_posix()
        return centre_square(read(self._reader, path, name))

    def findings(self) -> list[Finding]:
        """Return what was left out of the wanted classes and beside their folders."""
        return self._findings

    def _at_the_root(self) -> list[Finding]:
        found = list(self._beside.findings("data.path", self._root))
        if paths := self._beside.paths:
            found.append(
                Finding(
                    kind=FindingKind.OUTSIDE_CLASSES,
                    count=len(paths),
                    text=f"{len(paths)} images lie beside the class folders and belong to no "
                    f"class: {examples([path.name for path in paths])}",
                )
            )
        return found


def open_dataset(config: DataConfig) -> Dataset:
    """Open the dataset that the configuration names; DataError if it is not there."""
    if config.kind == "digits":
        return _digits()
    root = config.path
    if root is None or not root.is_dir():
        raise DataError(f"{root}: is not a folder; set data.path to the dataset's root folder")
    if config.kind == "image-folder":
        return FolderDataset(root, config)
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
