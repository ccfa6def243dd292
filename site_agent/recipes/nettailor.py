"""Recipe `nettailor`: a trained net's frozen blocks, kept or replaced to suit the lab's tasks.

The original is fine-tuned below the lab's tasks; its blocks as they were before, and lean proxies
beside them, learn to do as it does and to be cheap; the leanest net that is as good on images set
apart ships (NetTailor). The blocks that it kept are the backbone's to the last bit.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import logits
from rootstock.common.errors import DataError, TransplantError
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.tailored.resnet import tailored_spec
from rootstock.common.nets.training import descend
from rootstock.common.nettailor.augmented import AugmentedNet, activations
from rootstock.common.nettailor.learning import Costs, Settings, loss, optimiser_of, path_costs
from rootstock.common.nettailor.pruning import SearchResult, search
from rootstock.common.nettailor.tailored import (
    OWN_STATISTICS,
    SHARED_STATISTICS,
    Card,
    TailoredNet,
    card,
)
from rootstock.site_agent import scoring
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import ImageSet, batch_of
from rootstock.site_agent.recipes.fit import OPTIMISER, fit, ship_shape, train_shape
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun, largest, room
from rootstock.site_agent.recipes.sources import Backbone
from rootstock.site_agent.recipes.supervised import SupervisedRecipe

_ROUNDING = 1e-9
"""Two errors that differ by the tolerance may differ by a little more as floats."""


class _DivergedError(TransplantError):
    pass


class TaskHeads(nn.Module):
    """All of a lab's task modules above one category module: logits of each, by name."""

    def __init__(self, task_modules: Mapping[str, nn.Sequential]) -> None:
        super().__init__()
        self.names = tuple(sorted(task_modules))
        self.heads = nn.ModuleList(task_modules[name] for name in self.names)

    def forward(self, features_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Return (N), or (N, H, W) of a segmentation, for every task."""
        return tuple(logits(g(features_NCHW)) for g in self.heads)

    def by_name(self) -> dict[str, nn.Sequential]:
        """Return the task modules."""
        return {n: cast("nn.Sequential", g) for n, g in zip(self.names, self.heads, strict=True)}


@dataclass(frozen=True)
class _Work:
    run: TrainingRun
    """On the images that are not set apart."""
    teacher: tuple[nn.Sequential, TaskHeads]
    """The fine-tuned original, frozen."""
    costs: Costs


@dataclass(frozen=True)
class NettailorRecipe:
    """Fine-tune, augment, learn with cost and mimicry, search, tune, export."""

    config: TrainingConfig
    device: torch.device
    backbone: Backbone
    warn: Callable[[str], None]
    """Called if no net is within the tolerance."""
    name = "nettailor"

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe, its backbone by its digest."""
        return self.config.describe() | {
            "nettailor.backbone": self.backbone.description,
            "nettailor.shared_statistics": SHARED_STATISTICS,
            "nettailor.own_statistics": OWN_STATISTICS,
        }

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train task modules, and below them a category module that starts as the backbone.

        Every phase checkpoints into a folder of its own, so that what is done is not done again. A
        net that diverges in the search is given up. What was left out and every α are among the
        teacher's numbers.
        """
        config = self.config.nettailor
        rest, judged_on = set_apart(run.data.training, config.held_share, self.config.seed)
        # A checkpoint is of no other backbone.
        folder = run.folder / self.backbone.description.rpartition(" ")[2][:16]
        run = replace(run, data=replace(run.data, training=rest), folder=folder)
        original = SupervisedRecipe(self.config, self.device).train(
            Teacher(copy.deepcopy(self.backbone.extractor).requires_grad_(), start.task_modules),
            run.phase("original", "fine-tunes the original"),
        )
        teacher = (original.category_module, TaskHeads(original.task_modules))
        shape = input_shape(self.backbone.architecture)
        student = AugmentedNet(self.backbone.extractor, teacher[1], shape, seed=self.config.seed)
        train_shape({"student": student}, self.device)
        work = _Work(run, teacher, path_costs(student, shape))
        rates = Settings(
            steps=config.student_epochs,
            learning_rate=config.student_learning_rate,
            momentum=self.config.momentum,
            weight_decay=self.config.weight_decay,
            attention_rate=config.attention_rate,
            complexity=config.complexity,
            mimicry=config.mimicry,
        )
        self._learn(student, rates, work, "student", "learns with every block and proxy")
        result = self._leanest(student, rates, work, judged_on)
        if not result.met:
            self.warn(
                f"none of {len(result.tries)} tailored nets is within {config.tolerance:g} points "
                f"of the fine-tuned original's error on {len(judged_on)} images held apart; ships "
                f"the net with nothing left out, {result.error:.1f} points above; raise "
                "training.nettailor.tolerance, student_epochs or tuning_epochs"
            )
        tailored = TailoredNet(result.net)
        image = torch.zeros(1, *shape, device=self.device)
        described = card(tailored, nn.Sequential(*teacher), image)
        task_modules = _heads(tailored.head).by_name()
        ship_shape({"f": tailored.extractor, **task_modules})
        return Teacher(
            tailored.extractor,
            task_modules,
            numbers(described, result, room(len(task_modules))),
            tailored_spec(self.backbone.architecture, result.net.ordered()),
        )

    def _leanest(
        self, student: AugmentedNet, rates: Settings, work: _Work, judged_on: ImageSet
    ) -> SearchResult:
        """Search on images set apart; errors are points above the fine-tuned original's."""
        config = self.config.nettailor
        tuning = replace(
            rates,
            steps=config.tuning_epochs,
            learning_rate=config.tuning_learning_rate,
            complexity=0.0,
        )
        original = self._errors(*work.teacher, judged_on, work.run)

        diverged: set[AugmentedNet] = set()

        def tune(net: AugmentedNet, before: int, number: int) -> None:
            blocks = sum(path.universal for path in net.kept)
            what = f"tunes a net of {blocks} blocks and {len(net.kept) - blocks} proxies"
            what += ", again" * (number > 0)
            try:
                self._learn(net, tuning, work, f"tuned-{before}-{number}", what, draw=number)
            except _DivergedError:
                diverged.add(net)  # given up as any other that is not good enough

        def above(net: AugmentedNet) -> float:
            if net in diverged:
                return math.inf
            tailored = TailoredNet(net)  # what would ship is what is judged
            errors = self._errors(tailored.extractor, tailored.head, judged_on, work.run)
            return max(errors[task] - original[task] for task in errors)

        return search(student, config.tolerance + _ROUNDING, tune, above)

    def _errors(
        self, extractor: nn.Module, heads: nn.Module, judged_on: ImageSet, run: TrainingRun
    ) -> dict[str, float]:
        outputs = scoring.logits(extractor, _heads(heads).by_name(), judged_on, run.stop)
        return {
            task: scoring.error_percent(y_N, judged_on.labels_for(y_N))
            for task, y_N in outputs.items()
        }

    def _learn(
        self,
        net: AugmentedNet,
        settings: Settings,
        work: _Work,
        name: str,
        what: str,
        draw: int = 0,
    ) -> None:
        """Train what is the tasks' own, in place; afterwards frozen and in evaluation mode.

        The settings' `steps` count epochs here. `name` and `what` are the phase's folder, and a
        sentence on it; `draw` is added to the seed of the order of images and of their views.
        """
        phase = work.run.phase(name, what)
        optimiser = optimiser_of(net, settings)
        net.requires_grad_()

        def step(indices: Tensor, generator: torch.Generator) -> float:
            net.train()
            batch = batch_of(phase.data, indices, self.config.augment, generator)
            x_NCHW = batch.x_NCHW.to(self.device, memory_format=torch.channels_last)
            with torch.no_grad():
                shown = activations(*work.teacher, x_NCHW)
            ours = net.activations(x_NCHW)
            tasks = torch.stack([batch.loss(y_N) for y_N in ours.logits]).sum()
            whole = loss(net, ours, shown, tasks, work.costs, settings)
            if not bool(whole.isfinite()):
                raise _DivergedError(
                    f"recipe 'nettailor' {what} and diverged (loss {whole.item():g}); lower "
                    "student_learning_rate, tuning_learning_rate or mimicry"
                )
            descend(optimiser, whole)
            return float(whole.detach())

        changes = {
            "epochs": settings.steps,
            "learning_rate": settings.learning_rate,
            "seed": self.config.seed + draw,
        }
        config = self.config.model_copy(update=changes)
        fit(config, phase, {"net": net.changing()}, {OPTIMISER: optimiser}, step)
        net.eval().requires_grad_(False)


def numbers(described: Card, result: SearchResult, count: int) -> dict[str, float]:
    """Return a tailored net's numbers for its manifest, `count` of them at most.

    "nettailor/…_removed" and "nettailor/new_params_share" in percent of the fine-tuned original;
    "nettailor/points_above" it, the error on images set apart; "nettailor/tolerance_met" 1 or 0;
    "alpha/<path>" of every path that was kept, of too many the largest and "alpha/left_out".
    """
    named = {
        "nettailor/params_removed": described.params_removed,
        "nettailor/flops_removed": described.flops_removed,
        "nettailor/new_params_share": described.new_params_share,
        "nettailor/blocks_removed": float(described.blocks_removed),
        "nettailor/nets_tried": float(len(result.tries)),
        "nettailor/points_above": result.error,
        "nettailor/tolerance_met": float(result.met),
    }
    alphas = {f"alpha/{name}": alpha for name, alpha in described.alphas.items()}
    return named | largest(alphas, count - len(named), "alpha/left_out")


def _heads(head: nn.Module) -> TaskHeads:
    assert isinstance(head, TaskHeads)  # noqa: S101  # every net here has such a head
    return head


def set_apart(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split training images into what to train on and what the search is judged on.

    A share of the smaller side's images is set apart, with as many of the other side's.
    """
    count = int(share * min(images.counts()))
    if count == 0:
        category, rest = images.counts()
        raise DataError(
            f"a held share of {share:g} of {category} training images of the category and {rest} "
            "of the rest holds none apart; raise it or add images"
        )
    generator = torch.Generator().manual_seed(seed)
    apart: set[int] = set()
    for label in (0.0, 1.0):
        side = torch.nonzero(images.labels_N == label).flatten()
        apart |= set(side[torch.randperm(len(side), generator=generator)[:count]].tolist())
    others = [index for index in range(len(images)) if index not in apart]
    return images.subset(others), images.subset(sorted(apart))
