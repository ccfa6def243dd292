"""Recipe `l2t`: train with what other nets have learned (Learning What and Where to Transfer).

A lab with few images has nets that were trained on others: its own older ones, nets exported from
the transplant net, torchvision's. Their architectures may differ from the plan's. The teacher net
learns its tasks as under `supervised`, with SGD, and besides to give the sources' feature maps,
channel by channel and layer by layer as far as that lowers the loss of its own tasks.

N batch, C channels, H/W height and width, E epochs, P pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import logits
from rootstock.common.errors import ConfigurationError, TransplantError
from rootstock.common.l2t.matching import CONFIGURATIONS, Matching, MetaNetworks, Pair
from rootstock.common.l2t.student import Student, readable
from rootstock.common.l2t.transfer import Transfer
from rootstock.common.nets.spec import Setting, Shape
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import batch_of
from rootstock.site_agent.recipes.fit import OPTIMISER, fit, ship_shape, train_shape
from rootstock.site_agent.recipes.interface import Teacher, TrainingRun, largest, room
from rootstock.site_agent.recipes.sources import LoadedSource

META_OPTIMISER = "meta-optimiser"


class _History(nn.Module):
    """Mean λ of every epoch and pair, (E, P): kept with the weights."""

    where_EP: Tensor

    def __init__(self, epochs: int, pairs: int) -> None:
        super().__init__()
        self.register_buffer("where_EP", torch.zeros(epochs, pairs))


@dataclass(frozen=True)
class L2tRecipe:
    """SGD on the lab's own tasks and on matching; Adam on what is matched, and where."""

    config: TrainingConfig
    device: torch.device
    loaded: Mapping[str, LoadedSource]
    image_shape: Shape
    name = "l2t"

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe, its sources by their digests."""
        sources = {f"l2t.source.{name}": one.description for name, one in self.loaded.items()}
        return self.config.describe() | sources

    def train(self, start: Teacher, run: TrainingRun) -> Teacher:
        """Train; the last epoch's mean λ of every pair is among the teacher's numbers."""
        config = self.config
        matching = self._matching(start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            student = Student(start.category_module, start.task_modules, matching.layers())
            metas = MetaNetworks(matching.channels)
        train_shape({"student": student, "meta": metas}, self.device)
        theta = torch.optim.SGD(
            student.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        phi = torch.optim.Adam(
            metas.parameters(),
            lr=config.l2t.meta_learning_rate,
            weight_decay=config.l2t.meta_weight_decay,
        )
        transfer = Transfer(
            student,
            {name: one.source for name, one in self.loaded.items()},
            matching,
            metas,
            theta,
            phi,
            beta=config.l2t.beta,
            inner_steps=config.l2t.inner_steps,
            meta_period=config.l2t.meta_period,
        )
        history = _History(config.epochs, len(matching.pairs))
        seen: list[Tensor] = []

        def step(indices: Tensor, generator: torch.Generator) -> float:
            student.train()
            batch = batch_of(run.data, indices, config.augment, generator)

            def task_loss(outputs: Mapping[str, Tensor]) -> Tensor:
                return torch.stack(
                    [batch.loss(logits(output)) for output in outputs.values()]
                ).sum()

            x_NCHW = batch.x_NCHW.to(self.device, memory_format=torch.channels_last)
            # By its number in the epoch: a run that is resumed counts alike.
            result = transfer.step(x_NCHW, task_loss, len(seen))
            seen.append(result.where_P.cpu())
            return result.task_loss

        def epoch_done(epoch: int) -> None:
            history.where_EP[epoch] = torch.stack(seen).mean(0)
            seen.clear()

        modules = start.modules()
        more = {"regressors": student.regressors, "meta": metas, "lambda": history}
        run = replace(run, folder=run.folder / self._sources_digest())
        optimisers = {OPTIMISER: theta, META_OPTIMISER: phi}
        fit(config, run, {**modules, **more}, optimisers, step, epoch_done)
        ship_shape(modules)
        where, tasks = history.where_EP[-1].tolist(), len(start.task_modules)
        return replace(start, numbers=lambda_metrics(matching.pairs, where, room(tasks)))

    def _matching(self, start: Teacher) -> Matching:
        chosen = self.config.l2t.pairs
        target = readable(start.category_module, start.task_modules, self.image_shape)
        shapes = {name: one.source.shapes for name, one in self.loaded.items()}
        pairs = (
            CONFIGURATIONS[chosen](shapes, target)
            if isinstance(chosen, str)
            else [Pair(*names) for names in chosen]
        )
        try:
            return Matching(pairs, shapes, target)
        except TransplantError as error:
            raise ConfigurationError(f"training.l2t.pairs: {error}") from error

    def _sources_digest(self) -> str:
        """Return what names the sources' weights: a checkpoint is of no others."""
        text = "\n".join(f"{name} {one.description}" for name, one in self.loaded.items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def lambda_metrics(pairs: tuple[Pair, ...], where: list[float], count: int) -> dict[str, float]:
    """Return the pairs' mean λ as at most `count` numbers of a manifest, "lambda/source/m->n"."""
    named = {f"lambda/{pair}": value for pair, value in zip(pairs, where, strict=True)}
    return largest(named, count, "lambda/left_out")
