"""The loss of a tailored net: learn the task, be cheap, do as the teacher (paper, Eqs. 5 to 12).

Shapes: N batch, C channels, H/W height and width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it
from torch.utils.flop_counter import FlopCounterMode

from rootstock.common.nets.spec import Shape
from rootstock.common.nets.tailored.paths import Path
from rootstock.common.nettailor.augmented import Activations, AugmentedNet

Costs = Mapping[Path, float]
"""c of every path: its FLOPs by those of all universal blocks together."""


@dataclass(frozen=True)
class Settings:
    """Settings of one training by SGD, the rate falling as half a cosine.

    The defaults are those of the authors' published runs.
    """

    steps: int
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """For the task's own weights; attention has none."""
    attention_rate: float = 1.0
    """Multiplies attention's learning rate: short trainings need more to move it."""
    complexity: float = 0.3
    """γ1; 0 where a pruned net is tuned."""
    mimicry: float = 10.0
    """γ2."""


def parameters(module: nn.Module) -> int:
    """Return the number of parameters. BatchNorm's running statistics are none."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def flops(module: nn.Module, x_NCHW: Tensor) -> int:
    """Return the FLOPs of one pass over a batch, two a multiplication with addition.

    Convolutions and matrix products only, as PyTorch counts them; the module must be in evaluation
    mode if its BatchNorm's statistics are to stay.
    """
    with FlopCounterMode(display=False) as counter:
        module(x_NCHW)
    return int(counter.get_total_flops())


@torch.no_grad()
def path_costs(net: AugmentedNet, input_shape_CHW: Shape) -> dict[Path, float]:
    """Return c of every path, by the FLOPs of one image.

    The net is whole, nothing left out yet; its mode stays as it is.
    """
    device = next(net.parameters()).device
    training = net.training
    net.eval()
    image = torch.zeros(1, *input_shape_CHW, device=device)
    maps = {0: net.stem(image), **net.activations(image).nodes}
    counted = {path: flops(net.paths[net.name(path)], maps[path.source]) for path in net.ordered()}
    net.train(training)
    universal = sum(count for path, count in counted.items() if path.universal)
    return {path: count / universal for path, count in counted.items()}


def expected_complexity(alphas: Mapping[Path, Tensor], costs: Costs, nodes: int) -> Tensor:
    """Return C = Σ c (α − P_in − P_out) over the paths that are kept, differentiable.

    P_in is the probability that all paths into the node that a path reads are left out, P_out that
    all paths from the node that it merges into are; each path is left out with probability 1 − α,
    independently (Eqs. 6 to 9). The stem always is there and the last of `nodes` always is read:
    P_in and P_out are 0 for them. C is 1 where every universal block has α = 1 and no proxy is
    there. It can be below 0: the three events are taken for disjoint.
    """
    one = next(iter(alphas.values())).new_ones(())
    nothing_in = dict.fromkeys(range(nodes + 1), one)
    nothing_out = dict.fromkeys(range(nodes + 1), one)
    for path, alpha in alphas.items():
        nothing_in[path.target] = nothing_in[path.target] * (1 - alpha)
        nothing_out[path.source] = nothing_out[path.source] * (1 - alpha)
    nothing_in[0] = nothing_out[nodes] = 0 * one
    terms = [
        costs[path] * (alpha - nothing_in[path.source] - nothing_out[path.target])
        for path, alpha in alphas.items()
    ]
    return torch.stack(terms).sum()


def mimicry(student: Activations, teacher: Activations) -> Tensor:
    """Return T, how far a student is from its teacher (paper, Eq. 11), without a shape.

    The mean over nodes that the student has and over each task's logits of the mean squared
    difference.
    """
    pairs = [(x_NCHW, teacher.nodes[node]) for node, x_NCHW in student.nodes.items()]
    pairs += zip(student.logits, teacher.logits, strict=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).mean()


def loss(
    net: AugmentedNet,
    student: Activations,
    teacher: Activations,
    task_loss: Tensor,
    costs: Costs,
    settings: Settings,
) -> Tensor:
    """Return L = task loss + γ1 C + γ2 T (paper, Eq. 12), without a shape."""
    total = task_loss
    if settings.complexity:
        expected = expected_complexity(net.alphas(), costs, len(net.names))
        total = total + settings.complexity * expected
    return total + settings.mimicry * mimicry(student, teacher)


def optimiser_of(net: AugmentedNet, settings: Settings) -> torch.optim.SGD:
    """Return SGD over what is a task's own; attention is not decayed.

    A group's "factor" is what the learning rate is multiplied by in it.
    """
    rate = settings.learning_rate
    groups = (
        (net.own(), 1.0, settings.weight_decay),
        (net.attention.parameters(), settings.attention_rate, 0.0),
    )
    return torch.optim.SGD(
        [
            {"params": list(own), "lr": rate * factor, "factor": factor, "weight_decay": decay}
            for own, factor, decay in groups
        ],
        lr=rate,
        momentum=settings.momentum,
    )
