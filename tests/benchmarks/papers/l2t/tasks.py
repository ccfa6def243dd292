"""Tasks of sources and targets: public images of 32×32 pixels in three channels.

Test images are the data set's own test part and are read by the last evaluation alone.

Shapes: N images, S side.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rootstock.common.errors import DataError, SchemaError
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.papers.shared import data, datasets, digits
from tests.benchmarks.papers.shared.data import Task
from tests.benchmarks.papers.shared.datasets import CIFAR10

_CIFAR = {
    "cifar10": CIFAR10,
    "cifar10-even": CIFAR10[::2],
    "cifar10-odd": CIFAR10[1::2],
    "animals": tuple(name for name in CIFAR10 if name in digits.CLASSES["animals"]),
    "vehicles": tuple(name for name in CIFAR10 if name in digits.CLASSES["vehicles"]),
}
"""Classes of CIFAR-10; even and odd ones are two tasks without a class in common, as ImageNet's
and CIFAR's are."""
_GREY = ("fashion-mnist", "mnist", "usps")
VOC = "voc-animals"
"""Squares around PASCAL VOC's mammals: few images, of what CIFAR-10 has many of, seen otherwise."""
NAMES = (*_CIFAR, VOC, *_GREY)


def task(name: str, folders: Folders) -> Task:
    require(name)
    if name in _CIFAR:
        return replace(data.whole(folders, _CIFAR[name]), name=name)
    if name == VOC:
        dataset = datasets.load(name, folders)
        shown = [part.at(part.classes_N >= 0) for part in (dataset.training, dataset.test)]
        return Task(name, dataset.classes, shown[0], shown[1], photographs=True)
    return digits.coloured(digits.grey_task(name, folders))


def require(name: str) -> None:
    if name not in NAMES:
        raise SchemaError(f"unknown task '{name}'; known are {', '.join(NAMES)}")


def limited(whole: Task, per_class: int, *, seed: int) -> Task:
    """Keep that many training images of every class; more seeds draw others."""
    images = whole.training
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for place, name in enumerate(whole.classes):
        own = order[images.classes_N[order] == place][:per_class]
        if len(own) < per_class:
            raise DataError(
                f"task '{whole.name}' has {len(own)} training images of '{name}', "
                f"{per_class} are asked for; lower --samples-per-class"
            )
        chosen.append(own)
    return replace(whole, training=images.at(torch.cat(chosen)))
