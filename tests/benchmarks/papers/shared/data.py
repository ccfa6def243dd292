"""Images of the tasks: CIFAR-10 in two disjoint halves, and how a minibatch is drawn from them.

Test images are the data set's own test part and are read by the last evaluation alone.

Shapes: N images, C channels, S side, H/W height and width, P side with padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import DataError, SchemaError
from rootstock.common.images import normalise
from tests.benchmarks.harness.request import Folders
from tests.benchmarks.harness.training import epochs
from tests.benchmarks.papers.shared import datasets
from tests.benchmarks.papers.shared.datasets import CIFAR10, Labelled

_PADDING = 4
"""Pixels that a crop may move each way (He et al., 2016, section 4.2)."""
_GREY = 128
"""What moves in from outside: 0 once normalised."""

OVERLAPPING = (("automobile", "deer"), ("ship", "frog"))
"""Classes that net a and net b do without. The paper's CIFAR-10 and STL-10 each have one class that
the other has not; here each net lacks a vehicle and an animal that the other has, which leaves
eight classes to each and six in common."""
SAME: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
"""Both nets have all ten classes (paper, B.2)."""


@dataclass(frozen=True)
class Task:
    """What one net is trained and judged on."""

    name: str
    classes: tuple[str, ...]
    """A name for each output of the net's head; those in common with the other net come first."""
    training: Labelled
    """Classes are places in `classes`."""
    test: Labelled
    """For the last evaluation alone."""
    photographs: bool
    """Whether images bear cropping and mirroring; digits do not."""


def halves(
    folders: Folders, without: tuple[tuple[str, ...], tuple[str, ...]], *, seed: int
) -> tuple[Task, Task]:
    """Return the tasks of nets a and b: disjoint halves of CIFAR-10's training images.

    Parameters
    ----------
    without
        Classes that net a does without, and net b.
    seed
        Of the partition into halves.
    """
    classes = (ordered(without[0], without[1]), ordered(without[1], without[0]))
    if len(set(classes[0]) & set(classes[1])) < 2:
        raise SchemaError(
            f"without {without[0]} and {without[1]} nets have fewer than two classes in common, "
            "on which recombination is judged; leave out fewer"
        )
    training, test = _cifar10(folders)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
    a, b = order.chunk(2)
    return (
        _task("a", training.at(a), test, classes[0]),
        _task("b", training.at(b), test, classes[1]),
    )


def whole(folders: Folders, classes: tuple[str, ...]) -> Task:
    training, test = _cifar10(folders)
    return _task("cifar10", training, test, classes)


def _cifar10(folders: Folders) -> tuple[Labelled, Labelled]:
    """Return all training images, those that `datasets` sets apart included, and test images."""
    dataset = datasets.load("cifar10", folders)
    assert dataset.public is not None  # CIFAR-10's are set apart by `load`
    images_NCSS = torch.cat((dataset.public.images_NCSS, dataset.training.images_NCSS))
    classes_N = torch.cat((dataset.public.classes_N, dataset.training.classes_N))
    return Labelled(images_NCSS, classes_N), dataset.test


def ordered(without: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Return a net's classes, those in common first, so that equal outputs mean equal classes.

    Given are the classes that the net does without, and the other net.
    """
    if unknown := [name for name in (*without, *other) if name not in CIFAR10]:
        raise SchemaError(f"CIFAR-10 has no class '{unknown[0]}'; it has {', '.join(CIFAR10)}")
    own = [name for name in CIFAR10 if name not in without]
    return (*(n for n in own if n not in other), *(n for n in own if n in other))


def in_common(a: Task, b: Task) -> int:
    """Return how many classes two tasks have in common; they are the first of both."""
    return len(set(a.classes) & set(b.classes))


def _task(name: str, training: Labelled, test: Labelled, classes: tuple[str, ...]) -> Task:
    return Task(name, classes, relabelled(training, classes), relabelled(test, classes), True)


def relabelled(images: Labelled, classes: tuple[str, ...]) -> Labelled:
    """Keep CIFAR-10's images of some classes, and number these by their places."""
    paths = torch.full((len(CIFAR10),), -1)
    for place, name in enumerate(classes):
        paths[CIFAR10.index(name)] = place
    classes_N = paths[images.classes_N]
    return Labelled(images.images_NCSS[classes_N >= 0], classes_N[classes_N >= 0])


def spread(images: Labelled, count: int | None) -> Labelled:
    """Return that many images, evenly spread over the data set's order; None: all."""
    if count is None or count >= len(images):
        return images
    return images.at(torch.arange(count) * len(images) // count)


def drawn(images: Labelled, count: int, *, seed: int) -> Tensor:
    """Return some images without their labels, (N, C, S, S), uint8; all if there are fewer."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.images_NCSS[order[:count]]


def minibatches(
    task: Task, batch: int, *, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return normalised images (N, C, S, S) and their classes without end, epoch by epoch."""
    if len(task.training) < batch:
        raise DataError(
            f"task '{task.name}' has {len(task.training)} training images and a minibatch takes "
            f"{batch}; give it more images or a smaller minibatch"
        )
    return _minibatches(task, batch, torch.Generator().manual_seed(seed), device)


def _minibatches(
    task: Task, batch: int, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    images_NCSS = task.training.images_NCSS.to(device)
    classes_N = task.training.classes_N.to(device)
    for chosen in epochs(len(task.training), batch, generator):
        part_NCSS = images_NCSS[chosen.to(device)]
        if task.photographs:
            part_NCSS = cropped(part_NCSS, generator)
        yield (
            normalise(part_NCSS).to(memory_format=torch.channels_last),
            classes_N[chosen.to(device)],
        )


def cropped(images_NCSS: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image by up to 4 pixels each way and mirror it every other time; uint8."""
    count, channels, height, width = images_NCSS.shape
    device = images_NCSS.device
    padded_NCPP = F.pad(images_NCSS, (_PADDING,) * 4, value=_GREY)
    corner_2N = torch.randint(2 * _PADDING + 1, (2, count), generator=generator)
    mirror_N = torch.rand(count, generator=generator) < 0.5
    rows_NH = corner_2N[0][:, None] + torch.arange(height)
    along_W = torch.arange(width)
    columns_NW = corner_2N[1][:, None] + torch.where(mirror_N[:, None], along_W.flip(0), along_W)
    return padded_NCPP[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows_NH.to(device)[:, None, :, None],
        columns_NW.to(device)[:, None, None, :],
    ]
