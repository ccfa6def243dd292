"""Refines a candidate adapter on the lab's private images; only the adapter leaves (METHODS 1j).

N images, C channels of f(I), M channels of h(f(I)), H/W height and width.
"""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import Samples, TransplantProblem, logits
from rootstock.common.distillation.settings import AugmentConfig, BackDistillationSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.images.decode import normalise
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec, TaskKind
from rootstock.site_agent import stopping
from rootstock.site_agent.config import RefinementConfig
from rootstock.site_agent.data.images import ImageSet, LabData
from rootstock.site_agent.evaluation.measure import Joins, head
from rootstock.site_agent.recipes.interface import OnProgress
from rootstock.site_agent.recipes.supervised import balanced_order, batch_of
from rootstock.site_agent.scoring import inference, metrics

Score = tuple[float, float]
"""Error in percent on the holdout, then the task loss there: the smaller the better."""


@dataclass(frozen=True)
class Refined:
    """A refined adapter.

    Attributes
    ----------
    adapter
        In evaluation mode, on the CPU.
    start, end
        The holdout's score before and after; `end` is never above `start`.
    steps, seconds
        What it took.
    """

    adapter: Adapter
    start: Score
    end: Score
    steps: int
    seconds: float


def refine(
    joins: Joins,
    spec: AdapterSpec,
    data: LabData,
    config: RefinementConfig,
    augmentation: AugmentConfig,
    device: torch.device,
    on_progress: OnProgress,
    stop: threading.Event,
) -> Refined:
    """Learn the adapter on private training images with the task loss alone (λ = 0 in Eq. 3).

    Starts from the candidate that does best on the holdout, which the teacher did not see; f and
    g_S stay frozen. Features f(I) are computed once, for the images and a few augmented views.
    The adapter that does best on the holdout is kept, the start included, so the result is never
    worse than the start there. Validation images are not looked at.

    Parameters
    ----------
    joins
        f, g_S and the candidates.
    spec
        The structure that the refined adapter must have.
    data
        The lab's images.
    augmentation
        How views differ from the originals.

    Returns
    -------
    The same for the same inputs and seed.

    Raises
    ------
    Stopped
        If `stop` is set. Nothing is kept: an evaluation is done again from its beginning.
    """
    began = time.monotonic()
    adapter = choose_start(joins, spec, data, device, stop).requires_grad_(True)
    generator = torch.Generator().manual_seed(config.seed)
    x_NCHW, y_N = training_features(
        joins.category_module, joins.kind, data, config, augmentation, generator, device, stop
    )
    held = _features(joins.category_module, normalise(data.holdout.images_NCHW), device)
    net = head(adapter, joins.task_module).eval()

    def score() -> Score:
        return score_of(net, held, data.holdout)

    start = best = score()
    kept = copy.deepcopy(adapter.state_dict())
    learning = BackDistillation(
        # λ = 0: no pseudo-gradient is taken, so g_T has no part in it.
        TransplantProblem(joins.task_module, joins.task_module, _shape(x_NCHW)),
        adapter,
        Samples(x_NCHW, y_N),
        BackDistillationSettings(
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            distillation=0.0,
            seed=config.seed,
        ),
    )
    without_better = step = 0
    while not learning.done and without_better < config.patience:
        stopping.check(stop)
        step = learning.step().step
        if step % config.check_steps == 0 or learning.done:
            now = score()
            without_better += 1
            if now < best:
                best, without_better = now, 0
                kept = copy.deepcopy(adapter.state_dict())
            on_progress(step, config.steps, f"holdout error {best[0]:.1f}%")
    adapter.load_state_dict(kept)
    return Refined(adapter.requires_grad_(False).cpu(), start, best, step, time.monotonic() - began)


def choose_start(
    joins: Joins,
    spec: AdapterSpec,
    data: LabData,
    device: torch.device,
    stop: threading.Event,
) -> Adapter:
    """Return a copy of the candidate of that structure that does best on the holdout.

    Where joining with no adapter does best, and where no candidate has the structure, the start is
    the Dirac kernel, which passes features on as they are.

    Raises
    ------
    SchemaError
        If `spec` does not fit between f and g_S.
    Stopped
        If `stop` is set.
    """
    adapters: dict[str, Adapter] = {
        name: adapter
        for name, adapter in joins.adapters.items()
        if adapter is not None and adapter.spec == spec
    }
    dirac = Adapter(spec).identity_start().to(device).eval()
    starts = {"": dirac, **adapters}
    heads = {name: head(adapter, joins.task_module) for name, adapter in starts.items()}
    held = inference.logits(joins.category_module, heads, data.holdout, device, stop)
    scores = {name: _score(y_N, data.holdout) for name, y_N in held.items()}
    best = min(scores, key=lambda name: (scores[name], name))
    return copy.deepcopy(starts[best])


def training_features(
    category_module: nn.Module,
    kind: TaskKind,
    data: LabData,
    config: RefinementConfig,
    augmentation: AugmentConfig,
    generator: torch.Generator,
    device: torch.device,
    stop: threading.Event,
) -> tuple[Tensor, Tensor]:
    """Compute f(I) for the training images, then for augmented views of them.

    Parameters
    ----------
    kind
        Whether labels are of images or of pixels, which move with their views.

    Returns
    -------
    Features (N,C,H,W) and labels, (N) or (N,H,W), on the CPU; no more than
    `config.max_feature_bytes`. Both sides' images equally often, or those with labelled pixels.

    Raises
    ------
    Stopped
        If `stop` is set.
    """
    training = data.training
    orders = [_order(training, kind, generator) for _ in range(config.views + 1)]
    indices = torch.cat(orders)
    first = _features(category_module, normalise(training.images_NCHW[:1]), device)
    pixels = 1 if kind == "binary-classification" else training.images_NCHW[0, 0].numel()
    room = config.max_feature_bytes // ((first.numel() + pixels) * first.element_size())
    indices = indices[: max(2, room)]
    x_NCHW = torch.empty(len(indices), *first.shape[1:])
    labels = []
    still = AugmentConfig(shift=0, flip=False)
    for begin in range(0, len(indices), inference.BATCH):
        stopping.check(stop)
        chosen = indices[begin : begin + inference.BATCH]
        changes = still if begin < len(orders[0]) else augmentation
        batch = batch_of(data, chosen, changes, generator)
        own = batch.labels_N if kind == "binary-classification" else batch.labels_NHW
        assert own is not None  # noqa: S101  # the start was chosen by labels of this kind
        labels.append(own)
        x_NCHW[begin : begin + len(chosen)] = _features(category_module, batch.x_NCHW, device)
    return x_NCHW, torch.cat(labels)


def _order(training: ImageSet, kind: TaskKind, generator: torch.Generator) -> Tensor:
    """Return the images to learn from, shuffled."""
    if kind == "binary-classification":
        return balanced_order(training.labels_N, generator)
    shown = torch.nonzero(training.labels_N).flatten()
    return shown[torch.randperm(len(shown), generator=generator)]


def score_of(net: nn.Module, features_NCHW: Tensor, images: ImageSet) -> Score:
    """Return error and task loss of g_S∘h on features f(I) of images."""
    device = next(net.parameters()).device
    with torch.no_grad():
        parts = [
            logits(net(part.to(device))).cpu()
            for part in torch.split(features_NCHW, inference.BATCH)
        ]
    return _score(torch.cat(parts), images)


def _score(y_N: Tensor, images: ImageSet) -> Score:
    labels_N = images.labels_for(y_N)
    return metrics.error_percent(y_N, labels_N), metrics.task_loss(y_N, labels_N)


def _shape(x_NCHW: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = x_NCHW.shape
    return channels, height, width


@torch.no_grad()
def _features(category_module: nn.Module, x_NCHW: Tensor, device: torch.device) -> Tensor:
    parts = [
        category_module(part.to(device)).cpu() for part in torch.split(x_NCHW, inference.BATCH)
    ]
    return torch.cat(parts)
