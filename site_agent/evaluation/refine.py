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
from rootstock.common.distillation.settings import STILL, AugmentConfig, BackDistillationSettings
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.images import normalise
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.spec import AdapterSpec
from rootstock.common.nets.training import device_of, in_batches
from rootstock.site_agent import scoring
from rootstock.site_agent.config import RefinementConfig
from rootstock.site_agent.data.images import ImageSet, LabData, balanced_order, batch_of
from rootstock.site_agent.evaluation.measure import Joins, head
from rootstock.site_agent.recipes.interface import OnProgress
from rootstock.site_agent.state import check


@dataclass(frozen=True)
class Refined:
    """A refined adapter."""

    adapter: Adapter
    """In evaluation mode, on the CPU."""
    start: scoring.Score
    end: scoring.Score
    """The holdout's score before and after; `end` is never above `start`."""
    steps: int
    seconds: float


@dataclass(frozen=True)
class Refinement:
    """Learns an adapter on private training images with the task loss alone (λ = 0 in Eq. 3).

    Starts from the candidate that does best on the holdout, which the teacher did not see; f and
    g_S stay frozen. Features f(I) are computed once, for the images and a few augmented views.
    The adapter that does best on the holdout is kept, the start included, so the result is never
    worse than the start there. Validation images are not looked at.
    """

    joins: Joins
    data: LabData
    config: RefinementConfig
    augmentation: AugmentConfig
    """How views differ from the originals."""
    stop: threading.Event | None = None
    """Raises `Stopped` when it is set; nothing is kept."""

    def run(self, spec: AdapterSpec, on_progress: OnProgress) -> Refined:
        """Return the refined adapter of that structure; the same for the same inputs and seed."""
        began = time.monotonic()
        config, g = self.config, self.joins.task_module
        adapter = self.choose_start(spec).requires_grad_(True)
        x_NCHW, y_N = self.training_features(torch.Generator().manual_seed(config.seed))
        holdout = self.data.holdout
        f_NCHW = in_batches(self.joins.category_module, normalise(holdout.images_NCHW))
        net = head(adapter, g).eval()
        start = best = score_of(net, f_NCHW, holdout)
        kept = copy.deepcopy(adapter.state_dict())
        _, channels, height, width = x_NCHW.shape
        learning = BackDistillation(
            # λ = 0: no pseudo-gradient is taken, so g_T has no part in it.
            TransplantProblem(g, g, (channels, height, width)),
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
            check(self.stop)
            step = learning.step().step
            if step % config.check_steps == 0 or learning.done:
                now = score_of(net, f_NCHW, holdout)
                without_better += 1
                if now < best:
                    best, without_better = now, 0
                    kept = copy.deepcopy(adapter.state_dict())
                on_progress(step, config.steps, f"holdout error {best.error:.1f}%")
        adapter.load_state_dict(kept)
        seconds = time.monotonic() - began
        return Refined(adapter.requires_grad_(False).cpu(), start, best, step, seconds)

    def choose_start(self, spec: AdapterSpec) -> Adapter:
        """Return a copy of the candidate of that structure that does best on the holdout.

        Where joining with no adapter does best, and where no candidate has the structure, the
        start is the Dirac kernel, which passes features on as they are.
        """
        f, g = self.joins.category_module, self.joins.task_module
        starts = {"": Adapter(spec).identity_start().to(device_of(f)).eval()}
        for name, adapter in self.joins.adapters.items():
            if adapter is not None and adapter.spec == spec:
                starts[name] = adapter
        heads = {name: head(adapter, g) for name, adapter in starts.items()}
        outputs = scoring.logits(f, heads, self.data.holdout, self.stop)
        scores = {
            name: scoring.score(y_N, self.data.holdout.labels_for(y_N))
            for name, y_N in outputs.items()
        }
        best = min(scores, key=lambda name: (scores[name], name))
        return copy.deepcopy(starts[best])

    def training_features(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Compute f(I) for the training images, then for augmented views of them.

        Returns features (N,C,H,W) and labels, (N) or (N,H,W) of pixels moved with their views, on
        the CPU; no more than `config.max_feature_bytes`. Both sides' images equally often, or those
        with labelled pixels.
        """
        f, training = self.joins.category_module, self.data.training
        classifies = self.joins.kind == "binary-classification"
        orders = [self._order(generator) for _ in range(self.config.views + 1)]
        indices = torch.cat(orders)
        first = in_batches(f, normalise(training.images_NCHW[:1]))
        pixels = 1 if classifies else training.images_NCHW[0, 0].numel()
        room = self.config.max_feature_bytes // ((first.numel() + pixels) * first.element_size())
        indices = indices[: max(2, room)]
        x_NCHW = torch.empty(len(indices), *first.shape[1:])
        labels = []
        for begin in range(0, len(indices), scoring.BATCH):
            check(self.stop)
            chosen = indices[begin : begin + scoring.BATCH]
            changes = STILL if begin < len(orders[0]) else self.augmentation
            batch = batch_of(self.data, chosen, changes, generator)
            own = batch.labels_N if classifies else batch.labels_NHW
            assert own is not None  # noqa: S101  # the start was chosen by labels of this kind
            labels.append(own)
            x_NCHW[begin : begin + len(chosen)] = in_batches(f, batch.x_NCHW)
        return x_NCHW, torch.cat(labels)

    def _order(self, generator: torch.Generator) -> Tensor:
        labels_N = self.data.training.labels_N
        if self.joins.kind == "binary-classification":
            return balanced_order(labels_N, generator)
        shown = torch.nonzero(labels_N).flatten()
        return shown[torch.randperm(len(shown), generator=generator)]


def score_of(net: nn.Module, features_NCHW: Tensor, images: ImageSet) -> scoring.Score:
    """Return error and task loss of g_S∘h on features f(I) of images."""
    y_N = logits(in_batches(net, features_NCHW))
    return scoring.score(y_N, images.labels_for(y_N))
