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
from rootstock.common.distillation.problem import cross_entropy, logits
from rootstock.common.documents import Document
from rootstock.common.errors import ConfigurationError, NotFoundError, SchemaError
from rootstock.common.nets.spec import Name, TaskSpec
from rootstock.common.nets.training import descend, device_of
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.recipes.source_nets import SourceNet, require_source_fits
from rootstock.site_agent.recipes.supervised import balanced_order, batch_of
from rootstock.site_agent.scoring import inference, metrics
from rootstock.site_agent.teacher.train import initial_category_module
from rootstock.site_agent.transfer.snapshot import NEVER, LabSnapshot, StoredTeacher


class Score(Document):
    """How one source does below the lab's g."""

    holdout_error: float = Field(ge=0, le=100)
    """Percent of the holdout images, which f was not fine-tuned on: what ranks."""
    holdout_loss: float
    """Breaks ties."""
    validation_error: float = Field(ge=0, le=100)
    """Percent of the validation images: what is reported, and decides nothing."""

    def key(self) -> tuple[float, float]:
        """Return what ranks: the smaller the better."""
        return self.holdout_error, self.holdout_loss


class Ranked(Document):
    """One source, at once and after a few steps of fine-tuning."""

    source: str
    rank_at_once: int | None
    """From 1; None for a net that the sources are held against."""
    rank_fine_tuned: int | None
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


def from_spool(teacher: StoredTeacher, device: torch.device) -> SourceNet:
    """Read the category module of a teacher in the spool."""
    manifest = teacher.manifest
    name = f"{manifest.category} (spool, {teacher.entry.digest[:8]})"
    return SourceNet(name, manifest.architecture, teacher.category_module(device))


def candidates(
    lab: LabSnapshot, given: Sequence[SourceNet], warn: Callable[[str], None]
) -> list[SourceNet]:
    """Return the nets that were given, and those older teachers in the spool that fit.

    Raises
    ------
    SchemaError
        If one that was given does not fit.
    NotFoundError
        If there is none.
    """
    for source in given:
        require_source_fits(source, lab.architecture)
    found = list(given)
    for teacher in lab.others:
        source = from_spool(teacher, lab.device)
        try:
            require_source_fits(source, lab.architecture)
        except SchemaError as error:
            warn(f"left out: {error}")
            continue
        found.append(source)
    if not found:
        raise NotFoundError(
            f"{lab.config.state}: holds no older teacher net, and no file was given: there is "
            "nothing to rank; give --from NAME.safetensors, which `rootstock net export` writes"
        )
    return found


def task_named(lab: LabSnapshot, name: str | None) -> TaskSpec:
    """Return the task of that name, or the lab's first.

    Raises
    ------
    ConfigurationError
        If the lab's net has no such task.
    """
    tasks = lab.tasks()
    found = next((task for task in tasks if name in (None, task.name)), None)
    if found is None:
        raise ConfigurationError(
            f"--task {name}: the lab's net has no such task; it has "
            + ", ".join(task.name for task in tasks)
        )
    return found


def rank(
    lab: LabSnapshot,
    sources: Sequence[SourceNet],
    task: TaskSpec,
    steps: int,
    on_step: OnStep,
    warn: Callable[[str], None],
) -> Ranking:
    """Put every source below the lab's g, and judge it at once and after fine-tuning f.

    BatchNorm statistics of the recombined net are estimated anew on the lab's training images. f
    alone is fine-tuned, on these images, as `training` says the lab's own nets are (rate,
    minibatches, augmentation); g stays as it is.

    Parameters
    ----------
    lab
        Its g, and its images.
    sources
        See `candidates`.
    task
        Whose g.
    steps
        Of fine-tuning; 0 judges at once only.
    on_step
        Told of every step, over all sources.

    Raises
    ------
    DataError
        If the lab's images cannot be used, or are too few for BatchNorm statistics.
    """
    data = lab.data([task], warn)
    g = lab.own.task_module(task, lab.device)
    references = [
        SourceNet("this lab's own", lab.architecture, lab.own.category_module(lab.device)),
        SourceNet("initial weights", lab.architecture, _initial(lab)),
    ]
    everything = [*sources, *references]
    scores = []
    for index, source in enumerate(everything):

        def told(step: int, index: int = index, source: SourceNet = source) -> None:
            on_step(index * steps + step, len(everything) * steps, source.name)

        f = copy.deepcopy(source.category_module)
        at_once = judged(f, g, data)
        tuned = None
        if steps > 0:
            fine_tune(f, g, data, lab.config.training, steps, told)
            tuned = judged(f, g, data)
        scores.append((at_once, tuned))
    return Ranking(
        task=task.name,
        steps=steps,
        sources=_ranked(sources, scores[: len(sources)]),
        references=tuple(
            Ranked(
                source=each.name,
                rank_at_once=None,
                rank_fine_tuned=None,
                at_once=at_once,
                fine_tuned=tuned,
            )
            for each, (at_once, tuned) in zip(references, scores[len(sources) :], strict=True)
        ),
        training=len(data.training),
        holdout=len(data.holdout),
        validation=len(data.validation),
    )


def judged(f: nn.Sequential, g: nn.Sequential, data: LabData) -> Score:
    """Judge f below g, with BatchNorm statistics of the training images; both stay as they are.

    Raises
    ------
    DataError
        If there are too few images for statistics.
    """
    below, above = copy.deepcopy(f), copy.deepcopy(g)
    device = device_of(below)
    re_estimate_below(below, [above], data.training.images_NCHW, device)

    def measured(images: ImageSet) -> tuple[float, float]:
        y_N = inference.logits(below, {"task": above}, images, device, NEVER)["task"]
        labels_N = images.labels_for(y_N)
        return metrics.error_percent(y_N, labels_N), metrics.task_loss(y_N, labels_N)

    error, loss = measured(data.holdout)
    return Score(
        holdout_error=error, holdout_loss=loss, validation_error=measured(data.validation)[0]
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

    Parameters
    ----------
    config
        Rate (constant), minibatches, augmentation and seed; the same give the same bits.
    on_step
        Told how many steps are done.
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
        y_N = logits(above(f(batch.x_NCHW.to(device))))
        loss = cross_entropy(y_N, batch.labels_for(y_N).to(device))
        descend(optimiser, loss)
        on_step(step)
    f.eval().requires_grad_(False)


def _initial(lab: LabSnapshot) -> nn.Sequential:
    """Return what a training from nothing starts from."""
    plan, digest = lab.published.plan, lab.published.digest
    f = initial_category_module(lab.architecture, plan, digest, lab.fetch)
    return f.to(lab.device).eval().requires_grad_(False)


def _ranked(
    sources: Sequence[SourceNet], scores: Sequence[tuple[Score, Score | None]]
) -> tuple[Ranked, ...]:
    at_once = _places([first.key() for first, _ in scores])
    tuned = _places([(last or first).key() for first, last in scores])
    rows = [
        Ranked(
            source=source.name,
            rank_at_once=at_once[index],
            rank_fine_tuned=None if last is None else tuned[index],
            at_once=first,
            fine_tuned=last,
        )
        for index, (source, (first, last)) in enumerate(zip(sources, scores, strict=True))
    ]
    return tuple(rows[index] for index in sorted(range(len(rows)), key=tuned.__getitem__))


def _places(keys: Sequence[tuple[float, float]]) -> list[int]:
    """Return each key's place among all, from 1."""
    return [1 + sum(other < key for other in keys) for key in keys]
