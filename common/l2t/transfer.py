"""One minibatch of learning what and where to transfer: a step of θ, then one of φ.

Shapes: N images, C channels, H/W height and width, K channels of all pairs side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from rootstock.common.errors import TransplantError
from rootstock.common.l2t.bilevel import Lookahead, Sgd, Tensors, gradient
from rootstock.common.l2t.distances import Wanted
from rootstock.common.l2t.matching import Matching, MetaNetworks, matching_loss
from rootstock.common.l2t.student import Run, Student
from rootstock.common.l2t.taps import Source
from rootstock.common.nets.training import descend

BETA = 0.5
"""Weight of the matching loss (published runs)."""
INNER_STEPS = 2
"""T of the published runs."""

TaskLoss = Callable[[Mapping[str, Tensor]], Tensor]
"""L_org of the heads' outputs, by head."""


class TransferStep(NamedTuple):
    """The result of one minibatch."""

    task_loss: float
    """L_org."""
    where_P: Tensor
    """Mean λ of every pair."""


@dataclass(frozen=True)
class Transfer:
    """The bilevel step of the paper's algorithm 1, on one minibatch.

    (1) θ moves on L_org + β L_wfm. (2) T virtual steps on β L_wfm alone and (3) one on L_org
    follow, with the same rate, momentum and weight decay; (4) L_org is taken again, its gradient
    back through them to φ; (5) φ moves. Virtual steps leave no trace in θ, in its momentum, or in
    BatchNorm's statistics. As in the published runs β is part of them, too.
    """

    student: Student
    """θ, in training."""
    sources: Mapping[str, Source]
    """By the name that pairs have."""
    matching: Matching
    metas: MetaNetworks
    """φ; one that learns nothing takes no virtual step."""
    theta: torch.optim.SGD
    """Steps θ. Its rate is set from outside."""
    phi: torch.optim.Optimizer | None
    """Steps φ; None where it learns nothing."""
    beta: float = BETA
    inner_steps: int = INNER_STEPS
    """T."""
    meta_period: int = 1
    """φ moves on every that many minibatches; the published runs can do so and did not. Most of
    the time goes into φ's gradient."""

    def step(self, x_NCHW: Tensor, task_loss: TaskLoss, number: int = 0) -> TransferStep:
        """Learn from one minibatch of normalised images.

        `number` counts minibatches from 0: whether φ moves follows from it. If the loss is not
        finite any more, a TransplantError is raised and θ was left as it was.
        """
        features = {name: source(x_NCHW).features for name, source in self.sources.items()}
        wanted = self.matching.wanted(features)
        weights = self.metas(self.matching.pooled(features))
        weights_NK = weights.product()
        run = self.student(x_NCHW, wanted)
        own = task_loss(run.outputs)
        loss = own + self.beta * matching_loss(run.distances_NK, weights_NK.detach())
        if not bool(loss.isfinite()):
            raise TransplantError(
                f"the loss is {float(loss.detach())} ({float(own.detach()):g} of it the tasks'): "
                "training has diverged; lower the learning rate, or beta"
            )
        descend(self.theta, loss)
        if self.phi is not None and number % self.meta_period == 0:
            ahead = self.lookahead(x_NCHW, wanted, task_loss)
            self.phi.zero_grad(set_to_none=True)
            torch.autograd.backward(weights_NK, gradient(ahead, weights_NK.detach()))
            self.phi.step()
        where_P = torch.stack([where_N.detach().mean() for where_N in weights.where])
        return TransferStep(float(own.detach()), where_P)

    def lookahead(self, x_NCHW: Tensor, wanted: Sequence[Wanted], task_loss: TaskLoss) -> Lookahead:
        """Return what the virtual steps on a minibatch are made of, after θ's step; see `step`."""
        student, beta = self.student, self.beta
        parameters = dict(student.named_parameters())
        buffers = {name: buffer.clone() for name, buffer in student.named_buffers()}
        # One draw of dropout for all passes: the loss has to be the same function each time.
        seed = int(torch.randint(1 << 62, ()))
        devices = [x_NCHW.device] if x_NCHW.device.type == "cuda" else []

        def run(theta: Tensors, held: Sequence[Wanted], *, to_end: bool) -> Run:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                found: Run = functional_call(
                    student, {**buffers, **theta}, (x_NCHW, held), {"to_end": to_end}
                )
                return found

        def matching(theta: Tensors, weights_NK: Tensor) -> Tensor:
            run_ = run(theta, wanted, to_end=False)
            return beta * matching_loss(run_.distances_NK, weights_NK)

        (group,) = self.theta.param_groups
        state = self.theta.state
        return Lookahead(
            matching=matching,
            task=lambda theta: task_loss(run(theta, (), to_end=True).outputs),
            theta={name: parameter.detach() for name, parameter in parameters.items()},
            velocity={
                name: state[parameter].get("momentum_buffer", torch.zeros_like(parameter))
                for name, parameter in parameters.items()
            },
            sgd=Sgd(group["lr"], group["momentum"], group["weight_decay"]),
            steps=self.inner_steps,
        )
