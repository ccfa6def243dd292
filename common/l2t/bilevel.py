"""The meta-networks' gradient: back through virtual steps of the student (paper, algorithm 1).

From θ after its real step, T virtual steps on the matching loss alone and one on L_org; then L_org
again, whose gradient goes back through the steps, SGD's momentum and weight decay included, to the
weights λ w that the meta-networks gave. They depend on nothing but φ and the source's features, so
they are one tensor for all steps, and from there on it is ordinary backpropagation.

Two ways: `unrolled` keeps the graph of all steps and is what tests hold the other one against;
`gradient` keeps θ of each step, and computes each step's graph anew when it gets back to it.

Shapes: N images, K channels of all pairs side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
"""By parameter's name."""


@dataclass(frozen=True)
class Sgd:
    """Coefficients of v ← μ v + ∇ + weight decay · θ; θ ← θ − rate · v, as PyTorch's SGD."""

    rate: float
    momentum: float
    weight_decay: float


@dataclass(frozen=True)
class Lookahead:
    """What the virtual steps on one minibatch are made of.

    Attributes
    ----------
    matching
        The matching loss at θ with weights λ w (N, K). Called several times at one θ, which must
        give the same: dropout draws alike.
    task
        L_org at θ; likewise.
    theta, velocity
        θ and v where the virtual steps begin; neither is changed.
    sgd
        Coefficients.
    steps
        T, 0 or more.
    """

    matching: Callable[[Tensors, Tensor], Tensor]
    task: Callable[[Tensors], Tensor]
    theta: Tensors
    velocity: Tensors
    sgd: Sgd
    steps: int


def unrolled(ahead: Lookahead, weights_NK: Tensor) -> Tensor:
    """Return L_org after the virtual steps, with a graph back to the weights.

    The plain form: memory grows with the number of steps. Autograd does the rest.
    """
    theta, velocity = _leaves(ahead.theta), ahead.velocity
    for step in range(ahead.steps + 1):
        loss = ahead.matching(theta, weights_NK) if step < ahead.steps else ahead.task(theta)
        gradients = _gradients(loss, theta, graph=True)
        theta, velocity = _stepped(ahead.sgd, theta, velocity, gradients)
    return ahead.task(theta)


def gradient(ahead: Lookahead, weights_NK: Tensor) -> Tensor:
    """Return the gradient of L_org after the virtual steps with respect to the weights (N, K).

    With a = ∂L/∂θ' and b = ∂L/∂v' after a step, and c = b − rate · a, before it

        ∂L/∂θ = a + weight decay · c + ∇²loss · c,  ∂L/∂v = μ c,  ∂L/∂weights += ∂(∇loss · c)

    so that one step's graph is held at a time, and the first step needs no Hessian.

    Parameters
    ----------
    weights_NK
        λ w, without a graph.
    """
    held_NK = weights_NK.detach().requires_grad_()
    theta, velocity = _leaves(ahead.theta), ahead.velocity
    path = []
    for step in range(ahead.steps + 1):
        path.append(theta)
        loss = ahead.matching(theta, weights_NK) if step < ahead.steps else ahead.task(theta)
        gradients = _gradients(loss, theta, graph=False)
        del loss
        theta, velocity = _stepped(ahead.sgd, theta, velocity, gradients)
        theta = _leaves(theta)
    by_theta = _gradients(ahead.task(theta), theta, graph=False)
    by_velocity = {name: torch.zeros_like(value) for name, value in theta.items()}
    by_weights_NK = torch.zeros_like(weights_NK)
    sgd = ahead.sgd
    for step in reversed(range(ahead.steps + 1)):
        theta = path.pop()
        cotangent = {name: by_velocity[name] - sgd.rate * by_theta[name] for name in theta}
        on_task = step == ahead.steps
        loss = ahead.task(theta) if on_task else ahead.matching(theta, held_NK)
        gradients = _gradients(loss, theta, graph=True)
        along = torch.stack([(gradients[name] * cotangent[name]).sum() for name in theta]).sum()
        wanted = [*(theta.values() if step > 0 else ()), *(() if on_task else (held_NK,))]
        if not along.requires_grad or not wanted:
            continue
        found = torch.autograd.grad(along, wanted, allow_unused=True, materialize_grads=True)
        del loss, gradients, along
        if not on_task:
            by_weights_NK += found[-1]
        if step > 0:
            for name, curved in zip(theta, found, strict=False):
                by_theta[name] = by_theta[name] + sgd.weight_decay * cotangent[name] + curved
                by_velocity[name] = sgd.momentum * cotangent[name]
    return by_weights_NK


def _leaves(theta: Tensors) -> Tensors:
    return {name: value.detach().requires_grad_() for name, value in theta.items()}


def _gradients(loss: Tensor, theta: Tensors, *, graph: bool) -> Tensors:
    """Return ∇loss; 0 for what it does not depend on: momentum and decay move that as well."""
    found: Sequence[Tensor] = torch.autograd.grad(
        loss, list(theta.values()), create_graph=graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(theta, found, strict=True))


def _stepped(
    sgd: Sgd, theta: Tensors, velocity: Tensors, gradients: Tensors
) -> tuple[Tensors, Tensors]:
    moved, rolled = {}, {}
    for name, value in theta.items():
        rolled[name] = sgd.momentum * velocity[name] + gradients[name] + sgd.weight_decay * value
        moved[name] = value - sgd.rate * rolled[name]
    return moved, rolled
