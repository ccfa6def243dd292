"""Unsupervised domain adaptation: an extractor adapted by rotations alone (paper, section 5.1).

A net is trained on labelled images of one domain, with a rotation head. The head is frozen, the
extractor learns rotations of unlabelled images of another domain, and goes back below the
classifier of the first.
"""

from __future__ import annotations

import copy
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from tests.benchmarks.harness.pool import run_all
from tests.benchmarks.papers.recombine import data, domains, judging
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.digits import grey_task
from tests.benchmarks.papers.recombine.domains import Domain, DomainCell, DomainConfig
from tests.benchmarks.papers.recombine.request import Request
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.recombine.training import Learner, freeze, train

DIRECTIONS = (("mnist", "usps"), ("usps", "mnist"))
SOURCE = "source only"
STATISTICS = "test-time BN"
ADAPTED = "adapted by rp"


@dataclass(frozen=True)
class UdaCell:
    """One direction and seed; both nets are in the cache."""

    source: DomainConfig
    target: DomainConfig
    """Trained on the target's labels: the upper bound."""
    budget: Budget
    root: Path
    cache: Path


def measure(request: Request, pool: ProcessPoolExecutor, console: Console) -> list[Row]:
    """Return the rows of all directions, seed by seed."""
    names = [name for name, _ in DIRECTIONS]
    for name in names:
        grey_task(name, request.root, request.cache)  # once, before the processes start
    nets = [
        DomainCell(domains.configured(request, name, seed), request.root, request.cache)
        for seed in range(request.seeds)
        for name in names
    ]
    run_all(pool, "nets", domains.prepare, nets, console)
    return [
        row for rows in run_all(pool, "adaptations", run, cells(request), console) for row in rows
    ]


def cells(request: Request) -> list[UdaCell]:
    """Return every direction, seed by seed."""
    return [
        UdaCell(
            domains.configured(request, source, seed),
            domains.configured(request, target, seed),
            request.budget,
            request.root,
            request.cache,
        )
        for seed in range(request.seeds)
        for source, target in DIRECTIONS
    ]


def run(cell: UdaCell) -> list[Row]:
    """Adapt the source's extractor, and judge it beside what was there before."""
    source = domains.trained(cell.source, cell.root, cell.cache)
    target = grey_task(cell.target.task, cell.root, cell.cache)
    upper = domains.trained(cell.target, cell.root, cell.cache)
    adapted = adapt(source, target, cell)
    unlabelled = data.drawn(target.training, cell.budget.unlabelled, seed=cell.source.seed)
    test = data.spread(target.test, cell.budget.test_images)
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
    train([learner], cell.budget.adapting, torch.device(cell.source.device))
    return replace(source, f=f.eval().requires_grad_(False))
