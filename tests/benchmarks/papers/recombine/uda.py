"""Unsupervised domain adaptation: an extractor adapted by rotations alone (paper, section 5.1).

A net is trained on labelled images of one domain, with a rotation head. The head is frozen, the
extractor learns rotations of unlabelled images of another domain, and goes back below the
classifier of the first.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch

from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.papers.recombine import domains
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.domains import Domain, DomainConfig
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared import data, judging
from tests.benchmarks.papers.shared.digits import grey_task
from tests.benchmarks.papers.shared.training import Learner, freeze, train

DIRECTIONS = (("mnist", "usps"), ("usps", "mnist"))
SOURCE = "source only"
STATISTICS = "test-time BN"
ADAPTED = "adapted by rp"


@dataclass(frozen=True)
class UdaCell:
    """One direction and seed; both nets are in the cache."""

    request: Request[Budget]
    source: DomainConfig
    target: DomainConfig
    """Trained on the target's labels: the upper bound."""


def measure(request: Request[Budget], run: Workers) -> list[Row]:
    """Return the rows of all directions, seed by seed."""
    names = [name for name, _ in DIRECTIONS]
    for name in names:
        grey_task(name, request.folders)  # once, before the processes start
    nets = [domains.configured(request, name, seed) for seed in request.seeds for name in names]
    run.fill("nets", partial(domains.trained, request.folders), nets)
    return run.rows("adaptations", judged, cells(request))


def cells(request: Request[Budget]) -> list[UdaCell]:
    """Return every direction, seed by seed."""
    return [
        UdaCell(request, *(domains.configured(request, name, seed) for name in direction))
        for seed in request.seeds
        for direction in DIRECTIONS
    ]


def judged(cell: UdaCell) -> list[Row]:
    """Adapt the source's extractor, and judge it beside what was there before."""
    folders, budget = cell.request.folders, cell.request.budget
    source = domains.trained(folders, cell.source)
    target = grey_task(cell.target.task, folders)
    upper = domains.trained(folders, cell.target)
    adapted = adapt(source, target, cell)
    unlabelled = data.drawn(target.training, budget.unlabelled, seed=cell.source.seed)
    test = data.spread(target.test, budget.test_images)
    rows = []
    for method, net, images_NCSS in (
        (SOURCE, source, None),
        (STATISTICS, source, unlabelled),
        (ADAPTED, adapted, unlabelled),
        (UPPER, upper, unlabelled),
    ):
        whole = judging.recombined(net.f, net.head, images_NCSS)
        scores_NK = judging.outputs(whole, test.images_NCSS)
        rows.append(
            Row(
                setting="uda",
                method=method,
                case="",
                direction=f"{cell.source.task}>{cell.target.task}",
                seed=cell.source.seed,
                accuracy=judging.class_accuracy(scores_NK, test.classes_N),
                chance=100 / len(target.classes),
            )
        )
    return rows


def adapt(source: Domain, target: data.Task, cell: UdaCell) -> Domain:
    """Return the net with an extractor that learned rotations of the target's images.

    Labels of the target are not used; the source's own net stays as it is.
    """
    f, rotation = copy.deepcopy(source.f).requires_grad_(True), copy.deepcopy(source.rotation)
    freeze(rotation)
    learner = Learner(f, target, 100 * cell.source.seed + 40, rotation=rotation)
    train([learner], cell.request.budget.adapting, torch.device(cell.source.device))
    return replace(source, f=f.eval().requires_grad_(False))
