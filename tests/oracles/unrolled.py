"""The meta-networks' loss in the plain form: virtual steps whose graph is kept, and autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from rootstock.common.l2t.bilevel import Lookahead


def unrolled(ahead: Lookahead, weights_NK: Tensor) -> Tensor:
    """Return L_org after the virtual steps, with a graph back to the weights λ w (N, K).

    Memory grows with the number of steps.
    """
    theta = {name: value.detach().requires_grad_() for name, value in ahead.theta.items()}
    velocity, sgd = ahead.velocity, ahead.sgd
    for step in range(ahead.steps + 1):
        loss = ahead.matching(theta, weights_NK) if step < ahead.steps else ahead.task(theta)
        found = torch.autograd.grad(
            loss,
            list(theta.values()),
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        gradients = dict(zip(theta, found, strict=True))
        velocity = {
            name: sgd.momentum * velocity[name] + gradients[name] + sgd.weight_decay * value
            for name, value in theta.items()
        }
        theta = {name: value - sgd.rate * velocity[name] for name, value in theta.items()}
    return ahead.task(theta)
