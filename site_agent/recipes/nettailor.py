"""Recipe `nettailor`: a trained net's frozen blocks, kept or replaced to suit the lab's tasks.

The original is fine-tuned below the lab's tasks; its blocks as they were before, and lean proxies
beside them, learn to do as it does and to be cheap; the leanest net that is as good on images held
apart ships (NetTailor). The blocks that it kept are the backbone's to the last bit.

N batch, C channels, H/W height and width.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import cross_entropy, logits
from rootstock.common.errors import TransplantError
from rootstock.common.nets.architectures import input_shape
from rootstock.common.nets.spec import Setting
from rootstock.common.nets.tailored.resnet import tailored_spec
from rootstock.common.nettailor.augmented import AugmentedNet, activations
from rootstock.common.nettailor.complexity import Costs, path_costs
from rootstock.common.nettailor.learning import Settings, loss, optimiser_of
from rootstock.common.nettailor.pruning import SearchResult, search
from rootstock.common.nettailor.tailored import (
    OWN_STATISTICS,
    SHARED_STATISTICS,
    Card,
    TailoredNet,
    card,
)
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.recipes.held import held_apart
from rootstock.site_agent.recipes.interface import OnProgress, Teacher
from rootstock.site_agent.recipes.nettailor_backbone import Backbone
from rootstock.site_agent.recipes.numbers import largest, room
from rootstock.site_agent.recipes.supervised import (
    CHECKPOINT,
    OPTIMISER,
    Kept,
    SupervisedRecipe,
    batch_of,
    epochs,
    ship_shape,
)
from rootstock.site_agent.scoring import inference, metrics

_ROUNDING = 1e-9
"""Two errors that differ by the tolerance may differ by a little more as floats."""


class _DivergedError(TransplantError):
    """A phase came to a loss that is no number."""


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
        return {
            name: g
            for name, g in zip(self.names, self.heads, strict=True)
            if isinstance(g, nn.Sequential)
        }


@dataclass(frozen=True)
class _Work:
    """What all phases after the first share."""

    teacher: tuple[nn.Sequential, TaskHeads]
    """The fine-tuned original, frozen."""
    costs: Costs
    data: LabData
    folder: Path
    on_progress: OnProgress
    stop: threading.Event


class NettailorRecipe:
    """Fine-tune, augment, learn with cost and mimicry, search, tune, export.

    Parameters
    ----------
    config
        Of training; `config.nettailor` says how the net is tailored.
    device
        Where to train.
    backbone
        Whose blocks are kept or replaced.
    warn
        Told if no net is within the tolerance.
    """

    name = "nettailor"

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        backbone: Backbone,
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._device = device
        self._backbone = backbone
        self._warn = warn

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe: no path of the lab's disk."""
        chosen = self._config.nettailor.model_dump(mode="json", exclude={"backbone"})
        return (
            SupervisedRecipe(self._config, self._device).settings()
            | {f"nettailor.{key}": value for key, value in chosen.items()}
            | {
                "nettailor.backbone": self._backbone.description,
                "nettailor.shared_statistics": SHARED_STATISTICS,
                "nettailor.own_statistics": OWN_STATISTICS,
            }
        )

    def train(
        self,
        start: Teacher,
        data: LabData,
        folder: Path,
        on_progress: OnProgress,
        stop: threading.Event,
    ) -> Teacher:
        """Train on `data.training`; see `Recipe.train`.

        Every phase checkpoints into a folder of its own, so that what is done is not done again.

        Parameters
        ----------
        start
            Its task modules; the category module starts as the backbone.

        Returns
        -------
        The tailored net, with what was left out and every α among its numbers.

        Raises
        ------
        DataError
            If images held apart are none, or those left are fewer than a batch.
        TransplantError
            If training diverges before the search; a net that diverges in it is given up.
        """
        config = self._config.nettailor
        rest, held = held_apart(data.training, config.held_share, self._config.seed)
        data = replace(data, training=rest)
        # A checkpoint is of no other backbone.
        place = folder / self._backbone.description.rpartition(" ")[2][:16]
        original = SupervisedRecipe(self._config, self._device).train(
            Teacher(copy.deepcopy(self._backbone.extractor).requires_grad_(), start.task_modules),
            data,
            place / "original",
            _saying(on_progress, "fine-tunes the original"),
            stop,
        )
        teacher = (original.category_module, TaskHeads(original.task_modules))
        shape = input_shape(self._backbone.architecture)
        student = AugmentedNet(self._backbone.extractor, teacher[1], shape, seed=self._config.seed)
        student.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        work = _Work(teacher, path_costs(student, shape), data, place, on_progress, stop)
        rates = Settings(
            steps=config.student_epochs,
            learning_rate=config.student_learning_rate,
            momentum=self._config.momentum,
            weight_decay=self._config.weight_decay,
            attention_rate=config.attention_rate,
            complexity=config.complexity,
            mimicry=config.mimicry,
        )
        self._learn(student, rates, work, "student", "learns with every block and proxy")
        found = self._leanest(student, rates, work, held)
        if not found.met:
            self._warn(
                f"none of {len(found.tries)} tailored nets is within {config.tolerance:g} points "
                f"of the fine-tuned original's error on {len(held)} images held apart; ships the "
                f"net with nothing left out, {found.error:.1f} points above; raise "
                "training.nettailor.tolerance, student_epochs or tuning_epochs"
            )
        tailored = TailoredNet(found.net)
        image = torch.zeros(1, *shape, device=self._device)
        described = card(tailored, nn.Sequential(*teacher), image)
        task_modules = _heads(tailored.head).by_name()
        ship_shape({"f": tailored.extractor, **task_modules})
        return Teacher(
            tailored.extractor,
            task_modules,
            numbers(described, found, room(len(task_modules))),
            tailored_spec(self._backbone.architecture, found.net.ordered()),
        )

    def _leanest(
        self, student: AugmentedNet, rates: Settings, work: _Work, held: ImageSet
    ) -> SearchResult:
        """Search on images held apart; errors are points above the fine-tuned original's."""
        config = self._config.nettailor
        tuning = replace(
            rates,
            steps=config.tuning_epochs,
            learning_rate=config.tuning_learning_rate,
            complexity=0.0,
        )
        original = self._errors(*work.teacher, held, work.stop)

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
            errors = self._errors(tailored.extractor, tailored.head, held, work.stop)
            return max(errors[task] - original[task] for task in errors)

        return search(student, config.tolerance + _ROUNDING, tune, above)

    def _errors(
        self, extractor: nn.Module, heads: nn.Module, held: ImageSet, stop: threading.Event
    ) -> dict[str, float]:
        """Return the error of every task in percent."""
        found = inference.logits(extractor, _heads(heads).by_name(), held, self._device, stop)
        return {
            task: metrics.error_percent(y_N, held.labels_for(y_N)) for task, y_N in found.items()
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

        Parameters
        ----------
        settings
            `steps` counts epochs here.
        name
            Of the phase's folder.
        what
            For who watches.
        draw
            Of the order of images and their random views.

        Raises
        ------
        TransplantError
            If it diverges.
        """
        optimiser = optimiser_of(net, settings)
        net.requires_grad_()

        def step(indices: Tensor, generator: torch.Generator) -> float:
            net.train()
            batch = batch_of(work.data, indices, self._config.augment, generator)
            x_NCHW = batch.x_NCHW.to(self._device, memory_format=torch.channels_last)
            with torch.no_grad():
                shown = activations(*work.teacher, x_NCHW)
            ours = net.activations(x_NCHW)
            told = [
                cross_entropy(y_N, batch.labels_for(y_N).to(self._device)) for y_N in ours.logits
            ]
            found = loss(net, ours, shown, torch.stack(told).sum(), work.costs, settings)
            value = float(found.detach())
            if not math.isfinite(value):
                raise _DivergedError(
                    f"recipe 'nettailor' {what} and diverged (loss {value:g}); lower "
                    "student_learning_rate, tuning_learning_rate or mimicry"
                )
            optimiser.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return value

        changes = {
            "epochs": settings.steps,
            "learning_rate": settings.learning_rate,
            "seed": self._config.seed + draw,
        }
        epochs(
            self._config.model_copy(update=changes),
            self._device,
            work.data,
            Kept(work.folder / name / CHECKPOINT, {"net": net.changing()}, {OPTIMISER: optimiser}),
            step,
            _saying(work.on_progress, what),
            work.stop,
        )
        net.eval().requires_grad_(False)


def numbers(described: Card, found: SearchResult, count: int) -> dict[str, float]:
    """Return a tailored net's numbers for its manifest, `count` of them at most.

    "nettailor/…_removed" and "nettailor/new_params_share" in percent of the fine-tuned original;
    "nettailor/points_above" it, the error on images held apart; "nettailor/tolerance_met" 1 or 0;
    "alpha/<path>" of every path that was kept, of too many the largest and "alpha/left_out".
    """
    told = {
        "nettailor/params_removed": described.params_removed,
        "nettailor/flops_removed": described.flops_removed,
        "nettailor/new_params_share": described.new_params_share,
        "nettailor/blocks_removed": float(described.blocks_removed),
        "nettailor/nets_tried": float(len(found.tries)),
        "nettailor/points_above": found.error,
        "nettailor/tolerance_met": float(found.met),
    }
    alphas = {f"alpha/{name}": alpha for name, alpha in described.alphas.items()}
    return told | largest(alphas, count - len(told), "alpha/left_out")


def _heads(head: nn.Module) -> TaskHeads:
    assert isinstance(head, TaskHeads)  # noqa: S101  # every net here has such a head
    return head


def _saying(on_progress: OnProgress, what: str) -> OnProgress:
    """Return what a phase tells its steps to."""
    return lambda step, steps, message: on_progress(step, steps, f"{what}: {message}")
