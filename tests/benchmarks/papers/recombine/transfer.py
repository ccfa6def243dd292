"""Choosing what to transfer from: sources below the target's head (paper, section 5.3, figure 5).

Every task's net learns against one frozen rotation head. An extractor of a source goes below the
target's head, and is judged at once and after a few steps of fine-tuning; so a source can be chosen
without training anything for it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean

import torch
from scipy.stats import spearmanr
from torch import nn

from rootstock.common.nets.architectures import build_head, initialise
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.harness.rows import chosen
from tests.benchmarks.papers.recombine import domains
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.domains import DomainConfig
from tests.benchmarks.papers.recombine.rows import Row
from tests.benchmarks.papers.shared import data, judging
from tests.benchmarks.papers.shared.digits import grey_task
from tests.benchmarks.papers.shared.training import Learner, steps

FOUNDER = "public"
"""Whose net's rotation head all others learn against: the paper's CIFAR-100."""
TASKS = ("mnist", "usps", "fashion-mnist", "animals", "vehicles")
TARGETS = ("usps", "fashion-mnist", "animals")
COMPATIBLE = "iiw+rp"
INDEPENDENT = "independent"
NEW = "new head"
"""What transfer commonly does: the source's extractor below a head with initial weights."""
METHODS = (COMPATIBLE, INDEPENDENT, NEW)
_SHARES = (0.0, 0.1, 0.3, 1.0)
"""Of the steps of fine-tuning: when nets are judged."""


@dataclass(frozen=True)
class TransferCell:
    """One source, target, method and seed; both nets are in the cache."""

    request: Request[Budget]
    method: str
    source: DomainConfig
    target: DomainConfig


def measure(request: Request[Budget], run: Workers) -> list[Row]:
    """Return the rows of all sources and targets, seed by seed."""
    for name in (*TASKS, FOUNDER):
        grey_task(name, request.folders)  # once, before the processes start
    founders = [domains.configured(request, FOUNDER, seed) for seed in request.seeds]
    nets = [
        config(request, method, task, seed)
        for seed in request.seeds
        for method in (COMPATIBLE, INDEPENDENT)
        for task in TASKS
    ]
    for what, wanted in (("founders", founders), ("nets", nets)):
        run.fill(what, partial(domains.trained, request.folders), wanted)
    return run.rows("transfers", judged, cells(request))


def config(request: Request[Budget], method: str, task: str, seed: int) -> DomainConfig:
    """Return what decides the net of a task under a method."""
    if method != COMPATIBLE:
        return domains.configured(request, task, seed)
    founder = domains.configured(request, FOUNDER, seed)
    return domains.configured(request, task, seed, founder=founder, same=True)


def cells(request: Request[Budget]) -> list[TransferCell]:
    """Return every method from every source to every target, seed by seed."""
    return [
        TransferCell(
            request,
            method,
            config(request, method, source, seed),
            config(request, method, target, seed),
        )
        for seed in request.seeds
        for method in METHODS
        for target in TARGETS[: request.budget.targets]
        for source in TASKS
        if source != target
    ]


def judged(cell: TransferCell) -> list[Row]:
    """Put the source's extractor below the target's head, fine-tune both, and judge on the way."""
    seed, budget, folders = cell.source.seed, cell.request.budget, cell.request.folders
    target = domains.trained(folders, cell.target)
    f = copy.deepcopy(domains.trained(folders, cell.source).f).requires_grad_(True)
    task = grey_task(cell.target.task, folders)
    device = torch.device(cell.source.device)
    if cell.method == NEW:
        head = build_head(cell.target.architecture, len(task.classes))
        head = initialise(head, 100 * seed + 70).to(device)
    else:
        head = copy.deepcopy(target.head).requires_grad_(True)
    unlabelled = data.drawn(task.training, budget.unlabelled, seed=seed)
    test = data.spread(task.test, budget.transfer_images)

    def accuracy(below: nn.Module, above: nn.Module) -> float:
        net = judging.recombined(below, above, unlabelled)
        return judging.accuracy(judging.outputs(net, test.images_NCSS), test.classes_N)

    marks = [round(share * budget.tuning.steps) for share in _SHARES]
    measured = {0: accuracy(f, head)}
    learner = Learner(f, task, 100 * seed + 75, head=head)
    for step in steps([learner], budget.tuning, device):
        if step in marks:
            measured[step] = accuracy(f, head)
    upper = accuracy(target.f, target.head)
    return [
        Row(
            setting="transfer",
            method=cell.method,
            case=str(step),
            direction=f"{cell.source.task}>{cell.target.task}",
            seed=seed,
            accuracy=reached,
            chance=100 / len(task.classes),
            upper_bound=upper,
        )
        for step, reached in measured.items()
    ]


def rank_correlation(rows: Sequence[Row], method: str, other: str) -> float:
    """Return how alike two rankings of a target's sources are: Spearman's, mean over targets.

    One is by a method's accuracy without any fine-tuning, the other by another's after the last
    step.
    """
    last = str(max(int(row.case) for row in rows))
    found = []
    for seed in {row.seed for row in rows}:
        for target in dict.fromkeys(row.direction.partition(">")[2] for row in rows):
            before, after = (
                {
                    row.direction: row.accuracy
                    for row in chosen(rows, method=kind, case=case, seed=seed)
                    if row.direction.endswith(f">{target}")
                }
                for kind, case in ((method, "0"), (other, last))
            )
            pairs = [(value, after[source]) for source, value in before.items()]
            # A ranking that ranks nothing is like no other.
            tied = any(len(set(values)) == 1 for values in zip(*pairs, strict=True))
            found.append(0.0 if tied else float(spearmanr(pairs).statistic))
    return mean(found)
