"""Two nets a and b, trained under a condition and recombined (paper, section 4 and B.2 to B.4).

Shapes: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from rootstock.common.compatible.rotation import TURNS
from rootstock.common.documents import Document
from rootstock.common.errors import SchemaError
from rootstock.common.nets.architectures import build_category_module, build_head, initialise
from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.cache import cached
from tests.benchmarks.harness.request import Folders, Request
from tests.benchmarks.harness.training import Training
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared import data, judging
from tests.benchmarks.papers.shared.data import Task
from tests.benchmarks.papers.shared.training import Learner, freeze, train

FORMAT = 1
"""Raised when pairs are trained otherwise with the same configuration."""
ALL = "iiw+rp+dcc"
CONDITIONS = (
    "independent", "iiw", "rp", "dcc", "iiw+rp", "iiw+dcc", "rp+dcc", ALL, UPPER,
)  # fmt: skip
"""IIW: identical initial weights. RP: a shared head predicts rotations. DCC: a shared head
discriminates the classes in common. Independent: different initial weights, nothing shared."""
_CORRELATED = 2000
"""Test images that channels are correlated over."""
Scheme = Literal["joint", "a first", "b first"]
"""Joint, or incremental: the heads learn with the first net and are frozen for the other."""


class PairConfig(Document):
    """What decides the weights of a pair."""

    architecture: ArchitectureSpec
    without: tuple[tuple[str, ...], tuple[str, ...]]
    """Classes that a and b do without."""
    condition: str
    scheme: Scheme = "joint"
    common_classes: int
    """Classes of the DCC head: that many of those in common."""
    training: Training
    seed: int
    device: str
    format: int = FORMAT


@dataclass(frozen=True)
class Net:
    """An extractor and its target head."""

    f: nn.Sequential
    head: nn.Sequential


@dataclass(frozen=True)
class PairCell:
    """One pair to be trained and judged."""

    request: Request[Budget]
    config: PairConfig
    method: str
    case: str = ""
    setting: str = "analysis"


def run(cell: PairCell) -> list[Row]:
    """Train a pair, or take it from the cache, and judge it: a row for each direction."""
    folders = cell.request.folders
    tasks = data.halves(folders, cell.config.without, seed=cell.config.seed)
    return judged(cell, tasks, trained(cell.config, tasks, folders))


def trained(config: PairConfig, tasks: tuple[Task, Task], folders: Folders) -> tuple[Net, Net]:
    """Return nets a and b, from the cache if they are there."""
    a, b = built(config, tasks)
    modules = {"a.f.": a.f, "a.head.": a.head, "b.f.": b.f, "b.head.": b.head}
    device = torch.device(config.device)
    for module in modules.values():
        module.to(device)
    cached(folders, config, modules, lambda: learn(config, tasks, (a, b), device))
    return a, b


def built(config: PairConfig, tasks: tuple[Task, Task]) -> tuple[Net, Net]:
    """Return nets a and b with their initial weights: identical under IIW."""
    spec = config.architecture
    start = 100 * config.seed
    nets = []
    for place, task in enumerate(tasks):
        draw = start if "iiw" in config.condition else start + 2 * place
        f = initialise(build_category_module(spec), draw)
        nets.append(Net(f, initialise(build_head(spec, len(task.classes)), draw + 1)))
    return nets[0], nets[1]


def learn(
    config: PairConfig, tasks: tuple[Task, Task], nets: tuple[Net, Net], device: torch.device
) -> None:
    """Train nets a and b in place under a condition."""
    a, b = learners(config, tasks, nets)
    if config.scheme == "joint":
        train([a, b], config.training, device)
        return
    first, second = (a, b) if config.scheme == "a first" else (b, a)
    train([first], config.training, device)
    freeze(*(head for head in (first.rotation, first.common) if head is not None))
    train([second], config.training, device)


def learners(
    config: PairConfig, tasks: tuple[Task, Task], nets: tuple[Net, Net]
) -> tuple[Learner, Learner]:
    """Return both nets at their training, with the condition's auxiliary heads."""
    if config.condition not in CONDITIONS:
        raise SchemaError(
            f"unknown condition '{config.condition}'; known are {', '.join(CONDITIONS)}"
        )
    spec, start = config.architecture, 100 * config.seed
    parts = config.condition.split("+")
    common = None
    if "dcc" in parts:
        there = data.in_common(*tasks)
        if not 2 <= config.common_classes <= there:
            raise SchemaError(
                f"a DCC head of {config.common_classes} classes for tasks that have {there} in "
                f"common; it takes 2 to {there} of them, or rp, which needs none"
            )
        common = initialise(build_head(spec, config.common_classes), start + 4)
    rotations: list[nn.Sequential | None] = [None, None]
    if "rp" in parts:
        rotations = [initialise(build_head(spec, TURNS), start + 5)] * 2
    if config.condition == UPPER:
        rotations = [initialise(build_head(spec, TURNS), start + 5 + place) for place in (0, 1)]
    made = [
        Learner(
            f=net.f,
            task=task,
            seed=start + 10 + 2 * place,
            head=net.head,
            rotation=rotation,
            common=common,
            common_classes=config.common_classes,
        )
        for place, (task, net, rotation) in enumerate(zip(tasks, nets, rotations, strict=True))
    ]
    return made[0], made[1]


def judged(cell: PairCell, tasks: tuple[Task, Task], nets: tuple[Net, Net]) -> list[Row]:
    """Recombine both ways; the upper bound's nets stay as they are."""
    config, among = cell.config, data.in_common(*tasks)
    budget, upper = cell.request.budget, config.condition == UPPER
    unlabelled = [data.drawn(t.training, budget.unlabelled, seed=config.seed) for t in tasks]
    own = [
        judging.recombined(net.f, net.head, images_NCSS)
        for net, images_NCSS in zip(nets, unlabelled, strict=True)
    ]
    # Re-estimated on its own task's images, an extractor is the same below either head.
    alike = None if upper else judging.cross_correlation(own[0][0], own[1][0], _correlated(tasks))
    rows = []
    for place, task in enumerate(tasks):
        test = data.spread(task.test, budget.test_images)
        scores_NK = judging.outputs(own[place], test.images_NCSS)
        row = Row(
            setting=cell.setting,
            method=cell.method,
            case=cell.case,
            direction=f"{task.name}>{task.name}",
            seed=config.seed,
            accuracy=judging.accuracy(scores_NK, test.classes_N, among),
            chance=100 / among,
            own_accuracy=judging.accuracy(scores_NK, test.classes_N),
        )
        if alike is not None:
            f, other = nets[place].f, nets[1 - place].head
            shown = test.at(torch.nonzero(test.classes_N < among).flatten())
            kept, ours = (
                judging.accuracy(
                    judging.outputs(judging.recombined(f, other, images), shown.images_NCSS),
                    shown.classes_N,
                    among,
                )
                for images in (None, unlabelled[place])
            )
            row = replace(
                row,
                direction=f"{task.name}>{tasks[1 - place].name}",
                accuracy=ours,
                kept_accuracy=kept,
                correlation=float(alike.diagonal().mean()),
                permuted_correlation=judging.permuted(alike),
                channel_correlations=tuple(alike.diagonal().sort(descending=True).values.tolist()),
            )
        rows.append(row)
    return rows


def _correlated(tasks: tuple[Task, Task]) -> Tensor:
    """Return the images over which channels are correlated: the same for both extractors."""
    among = data.in_common(*tasks)
    images_NCSS = tasks[0].test.images_NCSS[tasks[0].test.classes_N < among]
    return images_NCSS[:: max(1, len(images_NCSS) // _CORRELATED)]
