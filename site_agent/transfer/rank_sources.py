"""Which net to transfer from: sources below the lab's own g (paper 004, section 5.3).

Where nets are compatible, a source's f works below g with no fine-tuning, or a few steps of it, so
that sources can be compared without a training for each.

Shapes: N images, C channels, H/W height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import nn

from rootstock.common.compatible.adaptation import OnStep
from rootstock.common.compatible.batchnorm import norms, re_estimate_below
from rootstock.common.distillation.problem import logits
from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError, NotFoundError, SchemaError
from rootstock.common.nets.spec import Name, TaskSpec
from rootstock.common.nets.training import descend, device_of
from rootstock.site_agent import scoring
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import ImageSet, LabData, balanced_order, batch_of
from rootstock.site_agent.lab import Lab
from rootstock.site_agent.recipes.sources import SourceNet, require_source_fits
from rootstock.site_agent.teacher.train import initial_category_module
from rootstock.site_agent.transfer.snapshot import LabSnapshot


class Score(Document):
    """How one source does below the lab's g."""

    holdout_error: float = Field(ge=0, le=100)
    """Percent of the holdout images, which f was not fine-tuned on: what ranks."""
    holdout_loss: float
    """Breaks ties."""
    validation_error: float = Field(ge=0, le=100)
    """Percent of the validation images: what is reported, and decides nothing."""


class Ranked(Document):
    """One source, at once and after a few steps of fine-tuning."""

    source: str
    rank_at_once: int | None = None
    """From 1; None for a net that the sources are compared with."""
    rank_fine_tuned: int | None = None
    """The same; None, too, without a step."""
    at_once: Score
    fine_tuned: Score | None


class Ranking(Document):
    """All sources of one task."""

    task: Name
    steps: int
    sources: tuple[Ranked, ...]
    """Best first: by holdout error after the steps of fine-tuning, or at once if there are none."""
    references: tuple[Ranked, ...]
    """The lab's own f, and the plan's initial weights: what transferring has to beat."""
    training: int
    holdout: int
    validation: int
    """Numbers of images."""


def candidates(lab: LabSnapshot, given: Sequence[SourceNet]) -> list[SourceNet]:
    """Return the nets that were given, all of which must fit, and older teachers that do."""
    for source in given:
        require_source_fits(source, lab.architecture)
    fitting = list(given)
    for teacher in lab.others:
        manifest = teacher.manifest
        name = f"{manifest.category} (spool, {teacher.entry.digest[:8]})"
        source = SourceNet(name, manifest.architecture, teacher.category_module(lab.device))
        try:
            require_source_fits(source, lab.architecture)
        except SchemaError as error:
            lab.warn(f"left out: {error}")
            continue
        fitting.append(source)
    if not fitting:
        raise NotFoundError(
            f"{lab.config.state}: holds no older teacher net, and no file was given: there is "
            "nothing to rank; give --from NAME.safetensors, which `rootstock net export` writes"
        )
    return fitting


def task_named(lab: Lab, name: str | None) -> TaskSpec:
    """Return the task of that name, or the lab's first."""
    chosen = next((task for task in lab.tasks if name in (None, task.name)), None)
    if chosen is None:
        raise ConfigurationError(
            f"--task {name}: the lab's net has no such task; it has "
            + ", ".join(task.name for task in lab.tasks)
        )
    return chosen


def rank(
    lab: LabSnapshot, sources: Sequence[SourceNet], task: TaskSpec, steps: int, on_step: OnStep
) -> Ranking:
    """Put every source below the lab's g, and judge it at once and after fine-tuning f.

    BatchNorm statistics of the recombined net are estimated anew on the lab's training images. f
    alone is fine-tuned, on these images, as `training` says the lab's own nets are (rate,
    minibatches, augmentation); the task's g stays as it is. 0 steps judge at once only; `on_step`
    is called after every step, counted over all sources.
    """
    data = lab.data
    g = lab.own.task_module(task, lab.device)
    initial = initial_category_module(lab, lab.architecture).to(lab.device)
    references = [
        SourceNet("this lab's own", lab.architecture, lab.own.category_module(lab.device)),
        SourceNet("initial weights", lab.architecture, initial.eval().requires_grad_(False)),
    ]
    everything = [*sources, *references]
    rows = []
    for index, source in enumerate(everything):

        def on_tuned(step: int, index: int = index, source: SourceNet = source) -> None:
            on_step(index * steps + step, len(everything) * steps, source.name)

        f = copy.deepcopy(source.category_module)
        at_once = judged(f, g, data)
        tuned = None
        if steps > 0:
            fine_tune(f, g, data, lab.config.training, steps, on_tuned)
            tuned = judged(f, g, data)
        rows.append(Ranked(source=source.name, at_once=at_once, fine_tuned=tuned))
    return Ranking(
        task=task.name,
        steps=steps,
        sources=_ranked(rows[: len(sources)]),
        references=tuple(rows[len(sources) :]),
        training=len(data.training),
        holdout=len(data.holdout),
        validation=len(data.validation),
    )


def judged(f: nn.Sequential, g: nn.Sequential, data: LabData) -> Score:
    """Judge f below g, with BatchNorm statistics of the training images; both stay as they are."""
    below, above = copy.deepcopy(f), copy.deepcopy(g)
    re_estimate_below(below, [above], data.training.images_NCHW, device_of(below))

    def score(images: ImageSet) -> scoring.Score:
        y_N = scoring.logits(below, {"task": above}, images)["task"]
        return scoring.score(y_N, images.labels_for(y_N))

    error, loss = score(data.holdout)
    return Score(
        holdout_error=error, holdout_loss=loss, validation_error=score(data.validation).error
    )


def fine_tune(
    f: nn.Sequential,
    g: nn.Sequential,
    data: LabData,
    config: TrainingConfig,
    steps: int,
    on_step: Callable[[int], None],
) -> None:
    """Train f, in place, below a g that stays as it is, on `data.training` alone.

    `config` says the rate (constant), minibatches, augmentation and seed; the same give the same
    bits. `on_step` is called with the number of steps done.
    """
    device = device_of(f)
    above = copy.deepcopy(g).eval().requires_grad_(False)
    f.requires_grad_(True)
    for layer in norms(f):
        layer.train()  # and nothing else: dropout would draw from the global generator
    optimiser = torch.optim.Adam(f.parameters(), lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if len(order) < config.batch_size:
            order = torch.cat((order, balanced_order(data.training.labels_N, generator)))
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        batch = batch_of(data, chosen, config.augment, generator)
        descend(optimiser, batch.loss(logits(above(f(batch.x_NCHW.to(device))))))
        on_step(step)
    f.eval().requires_grad_(False)


def _ranked(rows: Sequence[Ranked]) -> tuple[Ranked, ...]:
    at_once = _ranks([row.at_once for row in rows])
    tuned = _ranks([row.fine_tuned or row.at_once for row in rows])
    ranked = []
    for row, first, last in zip(rows, at_once, tuned, strict=True):
        ranks = {"rank_at_once": first, "rank_fine_tuned": last if row.fine_tuned else None}
        ranked.append(row.model_copy(update=ranks))
    return tuple(ranked[index] for index in sorted(range(len(rows)), key=tuned.__getitem__))


def _ranks(scores: Sequence[Score]) -> list[int]:
    keys = [(score.holdout_error, score.holdout_loss) for score in scores]
    return [1 + sum(other < key for other in keys) for key in keys]
