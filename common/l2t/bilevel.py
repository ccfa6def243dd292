"""The meta-networks' gradient: back through virtual steps of the student (paper, algorithm 1).

From θ after its real step, T virtual steps on the matching loss alone and one on L_org; then L_org
again, whose gradient goes back through the steps, SGD's momentum and weight decay included, to the
weights λ w that the meta-networks gave. They depend on nothing but φ and the source's features, so
they are one tensor for all steps, and from there on it is ordinary backpropagation.

No graph of all steps is kept: θ of each is, and its graph made anew on the way back.

Shapes: N images, K channels of all pairs side by side.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

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
    """The virtual steps on one minibatch."""

    matching: Callable[[Tensors, Tensor], Tensor]
    """The matching loss at θ with weights λ w (N, K). Called several times at one θ, which must
    give the same: dropout draws alike."""
    task: Callable[[Tensors], Tensor]
    """L_org at θ; likewise."""
    theta: Tensors
    """θ, and v below, where the virtual steps begin; neither is changed."""
    velocity: Tensors
    sgd: Sgd
    steps: int
    """T, 0 or more."""


def gradient(ahead: Lookahead, weights_NK: Tensor) -> Tensor:
    """Return the gradient of L_org after the virtual steps with respect to the weights λ w (N, K).

    With a = ∂L/∂θ' and b = ∂L/∂v' after a step, and c = b − rate · a, it holds before it that

        ∂L/∂θ = a + weight decay · c + ∇²loss · c,  ∂L/∂v = μ c,  ∂L/∂weights += ∂(∇loss · c)

    One step's graph is held at a time: that of the step on L_org from its way forward, those of the
    steps on the matching loss made anew. The first step needs no Hessian, only how fast the
    distances change along c, which is a forward pass in forward mode.
    """
    sgd = ahead.sgd
    theta, velocity = _leaves(ahead.theta), ahead.velocity
    path = []
    for _ in range(ahead.steps):
        path.append(theta)
        found = _gradients(ahead.matching(theta, weights_NK), theta, graph=False)
        theta, velocity = _stepped(sgd, theta, velocity, found)
        theta = _leaves(theta)
    before = theta
    on_task = _gradients(ahead.task(before), before, graph=True)
    theta, _ = _stepped(sgd, before, velocity, {name: g.detach() for name, g in on_task.items()})
    theta = _leaves(theta)
    by_theta = _gradients(ahead.task(theta), theta, graph=False)
    along = {name: -sgd.rate * value for name, value in by_theta.items()}
    by_weights_NK = torch.zeros_like(weights_NK)
    if not path:
        return by_weights_NK  # no step has seen the weights
    curved = _back(on_task, along, list(before.values()))
    del on_task
    held_NK = weights_NK.detach().requires_grad_()
    while True:
        # ∂L/∂θ and ∂L/∂v after the matching step that `path` ends with.
        for name, value in zip(along, curved, strict=False):
            by_theta[name] = by_theta[name] + sgd.weight_decay * along[name] + value
            along[name] = sgd.momentum * along[name] - sgd.rate * by_theta[name]
        theta = path.pop()
        if not path:
            return by_weights_NK + _directional(ahead, theta, along, held_NK)
        found = _gradients(ahead.matching(theta, held_NK), theta, graph=True)
        curved = _back(found, along, [*theta.values(), held_NK])
        del found  # its graph goes before the next one is made
        by_weights_NK += curved[-1]


def _back(gradients: Tensors, along: Tensors, to: list[Tensor]) -> Sequence[Tensor]:
    """Return the gradient of Σ ⟨gradients, along⟩; 0 for what it does not depend on."""
    total = torch.stack([(gradients[name] * along[name]).sum() for name in along]).sum()
    return torch.autograd.grad(total, to, allow_unused=True, materialize_grads=True)


def _directional(ahead: Lookahead, theta: Tensors, along: Tensors, held_NK: Tensor) -> Tensor:
    """Return how the matching loss's gradient to the weights changes as θ moves along a direction.

    Which is the gradient to the weights of ⟨∇loss, along⟩.
    """
    with forward_ad.dual_level():
        with warnings.catch_warnings():
            # For its first dual number PyTorch compiles formulas in a way that it calls deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            moving = {
                name: forward_ad.make_dual(value.detach(), along[name])  # type: ignore[no-untyped-call]
                for name, value in theta.items()
            }
        (by_weights_NK,) = torch.autograd.grad(ahead.matching(moving, held_NK), held_NK)
        dual = forward_ad.unpack_dual(by_weights_NK)  # type: ignore[no-untyped-call]
        tangent_NK: Tensor = dual.tangent
        return tangent_NK


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
