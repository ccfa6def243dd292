"""Recipe `l2t`: train with what other nets have learned (Learning What and Where to Transfer).

A lab with few images has nets that were trained on others: its own older ones, nets exported from
the transplant net, torchvision's. Their architectures may differ from the plan's. The teacher net
learns its tasks as under `supervised`, with SGD, and besides to give the sources' feature maps,
channel by channel and layer by layer as far as that lowers the loss of its own tasks.

N batch, C channels, H/W height and width, E epochs, P pairs.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rootstock.common.distillation.problem import cross_entropy, logits
from rootstock.common.errors import ConfigurationError, TransplantError
from rootstock.common.l2t.matching import CONFIGURATIONS, Matching, MetaNetworks, Pair
from rootstock.common.l2t.student import Student, readable
from rootstock.common.l2t.transfer import Transfer
from rootstock.common.nets.spec import Setting, Shape
from rootstock.site_agent.config import TrainingConfig
from rootstock.site_agent.data.images import LabData
from rootstock.site_agent.recipes.interface import OnProgress, Teacher
from rootstock.site_agent.recipes.l2t_sources import LoadedSource
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

META_OPTIMISER = "meta-optimiser"


class _History(nn.Module):
    """Mean λ of every epoch and pair, (E, P): kept with the weights."""

    where_EP: Tensor

    def __init__(self, epochs: int, pairs: int) -> None:
        super().__init__()
        self.register_buffer("where_EP", torch.zeros(epochs, pairs))


class L2tRecipe:
    """SGD on the lab's own tasks and on matching; Adam on what is matched, and where.

    Parameters
    ----------
    config
        Of training; `config.l2t` says how sources are used.
    device
        Where to train.
    sources
        By name, loaded.
    image_shape
        (C, H, W).
    """

    name = "l2t"

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        sources: Mapping[str, LoadedSource],
        image_shape: Shape,
    ) -> None:
        self._config = config
        self._device = device
        self._sources = {name: loaded.source for name, loaded in sources.items()}
        self._described = {name: loaded.description for name, loaded in sources.items()}
        self._image_shape = image_shape

    def settings(self) -> dict[str, Setting]:
        """Return what the manifest says about the recipe: no path of the lab's disk."""
        l2t = self._config.l2t
        chosen = l2t.model_dump(mode="json", exclude={"sources", "pairs"})
        pairs = l2t.pairs if isinstance(l2t.pairs, str) else len(l2t.pairs)
        return (
            SupervisedRecipe(self._config, self._device).settings()
            | {f"l2t.{key}": value for key, value in chosen.items()}
            | {f"l2t.source.{name}": text for name, text in self._described.items()}
            | {"l2t.pairs": pairs}
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

        Returns
        -------
        The teacher, with the last epoch's mean λ of every pair among its numbers; see
        `lambda_metrics`.

        Raises
        ------
        ConfigurationError
            If there is no such pair of layers.
        DataError
            If there are fewer images than a batch.
        TransplantError
            If training diverges.
        """
        config = self._config
        matching = self._matching(start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            student = Student(start.category_module, start.task_modules, matching.layers())
            metas = MetaNetworks(matching.channels)
        for module in (student, metas):
            module.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
            self._sources,
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
            batch = batch_of(data, indices, config.augment, generator)

            def task_loss(outputs: Mapping[str, Tensor]) -> Tensor:
                losses = []
                for output in outputs.values():
                    y_N = logits(output)
                    losses.append(cross_entropy(y_N, batch.labels_for(y_N).to(self._device)))
                return torch.stack(losses).sum()

            x_NCHW = batch.x_NCHW.to(self._device, memory_format=torch.channels_last)
            # By its place in the epoch: a run that is resumed counts alike.
            told = transfer.step(x_NCHW, task_loss, len(seen))
            seen.append(told.where_P.cpu())
            return told.task_loss

        def done(epoch: int) -> None:
            history.where_EP[epoch] = torch.stack(seen).mean(0)
            seen.clear()

        modules = start.modules()
        more = {"regressors": student.regressors, "meta": metas, "lambda": history}
        place = folder / self._sources_digest()
        place.mkdir(parents=True, exist_ok=True)
        kept = Kept(
            place / CHECKPOINT, {**modules, **more}, {OPTIMISER: theta, META_OPTIMISER: phi}
        )
        epochs(config, self._device, data, kept, step, on_progress, stop, done)
        ship_shape(modules)
        where, tasks = history.where_EP[-1].tolist(), len(start.task_modules)
        return replace(start, numbers=lambda_metrics(matching.pairs, where, room(tasks)))

    def _matching(self, start: Teacher) -> Matching:
        chosen = self._config.l2t.pairs
        target = readable(start.category_module, start.task_modules, self._image_shape)
        shapes = {name: source.shapes for name, source in self._sources.items()}
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
        text = "\n".join(f"{name} {what}" for name, what in self._described.items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def lambda_metrics(pairs: tuple[Pair, ...], where: list[float], count: int) -> dict[str, float]:
    """Return the pairs' λ as numbers of a manifest, "lambda/source/m->n", as many as it takes.

    Parameters
    ----------
    pairs, where
        Mean λ a pair.
    count
        As many at most; see `largest`.
    """
    named = {f"lambda/{pair}": value for pair, value in zip(pairs, where, strict=True)}
    return largest(named, count, "lambda/left_out")
