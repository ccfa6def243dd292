"""Ways to train a target net, with sources and without, behind one interface.

Feature matching (FitNets) is `Transfer` with meta-networks that learn nothing.

Shapes: N images, C channels, S side, H/W height and width, P pairs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it

from rootstock.common.errors import SchemaError
from rootstock.common.l2t.distances import Size, resized
from rootstock.common.l2t.matching import (
    Matching,
    MetaNetworks,
    Pair,
    all_to_all,
    one_to_one,
    single,
)
from rootstock.common.l2t.student import Readable, Run, Student, readable
from rootstock.common.l2t.taps import Seen, Source
from rootstock.common.l2t.transfer import Transfer
from rootstock.common.nets.architectures import (
    build_category_module,
    build_head,
    initialise,
    input_shape,
)
from rootstock.common.nets.spec import ArchitectureSpec, Shape
from rootstock.common.nets.training import descend
from tests.benchmarks.papers.l2t.budget import TargetTraining

CLASSES = "classes"
"""The target's own head."""


def attention(map_NCHW: Tensor) -> Tensor:
    """Return the attention map (N, HW): squares summed over channels, of norm 1.

    Zagoruyko and Komodakis, 2017, "Paying more attention to attention", equation 1 with p = 2.
    """
    return F.normalize(map_NCHW.square().sum(1).flatten(1))


def attention_loss(source_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Return the mean over images and pixels of squared differences of attention maps.

    A source's map of another size is resized to the target's, bilinearly. As in the published code
    of attention transfer, which weights it by 1,000.
    """
    size: Size = (target_NCHW.shape[2], target_NCHW.shape[3])
    difference_NP = attention(resized(source_NCHW, size)) - attention(target_NCHW)
    return difference_NP.square().mean()


def distillation_loss(source_NO: Tensor, target_NO: Tensor, temperature: float = 2.0) -> Tensor:
    """Return what learning without forgetting adds: the source's answers to the new images.

    Cross-entropy of softened outputs, mean over images (Li and Hoiem, 2016, equations 2 and 3;
    temperature 2, weight 1).

    The target's outputs are of a head that it has for the source's task.
    """
    told_NO = torch.softmax(source_NO / temperature, 1)
    return -(told_NO * torch.log_softmax(target_NO / temperature, 1)).sum(1).mean()


@dataclass(frozen=True)
class SourceNet:
    """A trained source."""

    architecture: ArchitectureSpec
    f: nn.Sequential
    source: Source
    """f and its head, read at the ends of stages."""
    outputs: int


@dataclass(frozen=True)
class Given:
    """What every method begins with."""

    architecture: ArchitectureSpec
    classes: int
    sources: Mapping[str, SourceNet]
    training: TargetTraining
    seed: int
    device: torch.device

    def f(self) -> nn.Sequential:
        """Return the target's category module with its initial weights, alike for all methods."""
        module = initialise(build_category_module(self.architecture), 100 * self.seed + 60)
        return module.to(self.device)

    def head(self, outputs: int, place: int = 0) -> nn.Sequential:
        """Return a head with its initial weights; the place tells heads apart."""
        module = initialise(build_head(self.architecture, outputs), 100 * self.seed + 61 + place)
        return module.to(self.device)

    def readers(self) -> dict[str, Source]:
        return {name: net.source for name, net in self.sources.items()}

    def shapes(self) -> dict[str, dict[str, Shape]]:
        return {name: net.source.shapes for name, net in self.sources.items()}

    def sgd(self, module: nn.Module) -> torch.optim.SGD:
        training = self.training
        return torch.optim.SGD(
            module.parameters(),
            lr=training.rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )


class Learner(Protocol):
    """A target at its training."""

    student: Student
    theta: torch.optim.SGD
    """Its rate is set from outside."""
    pairs: tuple[Pair, ...]
    """Those that it has λ of; empty if it learns none."""

    def step(self, x_NCSS: Tensor, classes_N: Tensor, number: int = 0) -> Tensor:
        """Learn from one minibatch, of a number; return the mean λ of every pair (P)."""
        ...


Method = Callable[[Given], Learner]
Penalty = Callable[[Run, Mapping[str, Seen]], Tensor]
"""A loss of the target's pass beside what the sources make of the same images."""


class Plain:
    """Cross-entropy, and penalties beside it."""

    def __init__(
        self,
        student: Student,
        theta: torch.optim.SGD,
        sources: Mapping[str, Source],
        penalties: tuple[Penalty, ...],
    ) -> None:
        self.student = student
        self.theta = theta
        self.pairs: tuple[Pair, ...] = ()
        self._sources = sources
        self._penalties = penalties

    def step(self, x_NCSS: Tensor, classes_N: Tensor, number: int = 0) -> Tensor:
        seen = {name: source(x_NCSS) for name, source in self._sources.items()}
        run = self.student(x_NCSS)
        loss = F.cross_entropy(run.outputs[CLASSES], classes_N)
        for penalty in self._penalties:
            loss = loss + penalty(run, seen)
        descend(self.theta, loss)
        return x_NCSS.new_zeros(0)


Learns = Literal["nothing", "what", "what-where"]


class Matched:
    """Feature matching, its weights learned or not."""

    def __init__(self, given: Given, pair: Pairing, learns: Learns) -> None:
        f, heads = given.f(), {CLASSES: given.head(given.classes)}
        shapes = given.shapes()
        target = readable(f, heads, input_shape(given.architecture))
        matching = Matching(pair(shapes, target), shapes, target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 * given.seed + 70)
            self.student = Student(f, heads, matching.layers()).to(given.device)
            metas = MetaNetworks(matching.channels).to(given.device)
        if learns != "what-where":
            metas.where.requires_grad_(False)
        self.theta = given.sgd(self.student)
        training, phi = given.training, None
        if learns != "nothing":
            phi = torch.optim.Adam(metas.parameters(), lr=training.meta_rate, weight_decay=1e-4)
        self.pairs = matching.pairs if learns == "what-where" else ()
        self._transfer = Transfer(
            self.student,
            given.readers(),
            matching,
            metas,
            self.theta,
            phi,
            beta=training.beta / len(given.sources),
            inner_steps=training.inner_steps,
            meta_period=training.meta_period,
        )

    def step(self, x_NCSS: Tensor, classes_N: Tensor, number: int = 0) -> Tensor:
        step = self._transfer.step(
            x_NCSS, lambda outputs: F.cross_entropy(outputs[CLASSES], classes_N), number
        )
        return step.where_P[: len(self.pairs)]


Pairing = Callable[[Mapping[str, Mapping[str, Shape]], Readable], list[Pair]]


def scratch(given: Given) -> Learner:
    student = Student(given.f(), {CLASSES: given.head(given.classes)})
    return Plain(student, given.sgd(student), {}, ())


def fine_tune(given: Given) -> Learner:
    """Begin with the first source's category module."""
    name, net = next(iter(given.sources.items()))
    if net.architecture != given.architecture:
        raise SchemaError(
            f"fine-tune begins with a source's weights, and source '{name}' is a "
            f"{net.architecture.name} where the target is a {given.architecture.name}; name one of "
            "that architecture, or leave fine-tune out of --methods"
        )
    f = given.f()
    f.load_state_dict(net.f.state_dict())
    student = Student(f, {CLASSES: given.head(given.classes)})
    return Plain(student, given.sgd(student), {}, ())


def penalised(given: Given, *, forgetting: bool = False, attention: bool = False) -> Learner:
    """Give the sources' answers as well, by a head each; attend to what they attend to.

    Learning without forgetting, and attention transfer stage with stage.
    """
    f, heads = given.f(), {CLASSES: given.head(given.classes)}
    penalties: list[Penalty] = []
    pairs: list[Pair] = []
    if attention:
        pairs = one_to_one(given.shapes(), readable(f, heads, input_shape(given.architecture)))
        penalties.append(
            lambda run, seen: (
                given.training.attention
                * torch.stack(
                    [
                        attention_loss(seen[source].features[layer], run.features[target])
                        for source, layer, target in pairs
                    ]
                ).sum()
            )
        )
    if forgetting:
        for place, (name, net) in enumerate(given.sources.items(), start=1):
            heads[f"old-{name}"] = given.head(net.outputs, place)
        penalties.append(
            lambda run, seen: (
                given.training.forgetting
                * torch.stack(
                    [
                        distillation_loss(seen[name].outputs, run.outputs[f"old-{name}"])
                        for name in given.sources
                    ]
                ).sum()
            )
        )
    student = Student(f, heads, read=[pair.target for pair in pairs])
    return Plain(student, given.sgd(student), given.readers(), tuple(penalties))


OURS = "l2t-ww"
SEVERAL = ("fm", OURS)
"""Methods that learn from all sources at once, too."""
METHODS: dict[str, Method] = {
    "scratch": scratch,
    "fine-tune": fine_tune,
    "lwf": partial(penalised, forgetting=True),
    "at": partial(penalised, attention=True),
    "lwf+at": partial(penalised, forgetting=True, attention=True),
    "fm-single": partial(Matched, pair=single, learns="nothing"),
    "fm": partial(Matched, pair=one_to_one, learns="nothing"),
    "l2t-w-single": partial(Matched, pair=single, learns="what"),
    "l2t-w": partial(Matched, pair=one_to_one, learns="what"),
    OURS: partial(Matched, pair=all_to_all, learns="what-where"),
}
"""By name, in the order of the paper's table 1; `fm` and `l2t-w` match stage with stage."""
