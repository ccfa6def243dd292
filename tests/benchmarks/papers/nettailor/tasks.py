"""The tasks: what the backbone learns from, and what it is tailored to. No image is in both.

Shapes: N images, C channels, S side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rootstock.common.errors import SchemaError
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.data import Task
from tests.benchmarks.papers.shared.datasets import CIFAR10, DIGITS, Labelled
from tests.benchmarks.papers.shared.digits import coloured, grey_task

_GREY = ("mnist", "fashion-mnist")
NAMES = ("digits", *_GREY, "cifar10")
HELD_SHARE = 0.2
"""Of a task's training images, at most: small tasks need theirs for training."""


@dataclass(frozen=True)
class Split:
    """A task's images as one run uses them."""

    task: Task
    """Without the images held apart."""
    held: Labelled
    """What the search is judged on; no net is trained on them."""


def backbone_task(folders: Folders) -> Task:
    """Return what universal blocks are trained on: four fifths of CIFAR-10's training images."""
    dataset = datasets.load("cifar10", folders)
    return Task("backbone", CIFAR10, dataset.training, dataset.test, True)


def require(name: str) -> None:
    if name not in NAMES:
        raise SchemaError(f"unknown task '{name}'; known are {', '.join(NAMES)}")


def read(name: str, folders: Folders) -> Task:
    """Return a task that the backbone is tailored to; grey images have three equal channels.

    `digits` are scikit-learn's; `cifar10` is the fifth of CIFAR-10's training images that the
    backbone has not seen.
    """
    require(name)
    if name in _GREY:
        return coloured(grey_task(name, folders))
    dataset = datasets.load(name, folders)
    if name == "digits":
        return Task(name, DIGITS, dataset.training, dataset.test, False)
    assert dataset.public is not None  # CIFAR-10's are set apart by `load`
    return Task(name, CIFAR10, dataset.public, dataset.test, True)


def split(task: Task, *, held: int, seed: int) -> Split:
    """Hold some of a task's training images apart, at most `held`; seeds draw others."""
    count = min(held, int(HELD_SHARE * len(task.training)))
    order = torch.randperm(len(task.training), generator=torch.Generator().manual_seed(seed))
    rest = replace(task, training=task.training.at(order[count:]))
    return Split(rest, task.training.at(order[:count]))
