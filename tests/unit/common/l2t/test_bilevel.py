"""The meta-networks' gradient: two ways, and differences of the loss, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from rootstock.common.l2t.bilevel import Lookahead, Sgd, gradient
from rootstock.common.l2t.matching import MetaNetworks, matching_loss
from rootstock.common.l2t.transfer import Transfer
from tests.oracles.unrolled import unrolled
from tests.support import l2t_nets
from tests.support.l2t_nets import Case
from tests.support.layers import layer


def ahead(case: Case, steps: int, sgd: Sgd) -> Lookahead:
    held, _ = case.held()
    torch.manual_seed(7)
    theta = {name: value.detach() for name, value in case.student.named_parameters()}
    return Lookahead(
        matching=lambda theta, weights_NK: matching_loss(
            functional_call(case.student, theta, (case.x_NCHW, held)).distances_NK, weights_NK
        ),
        task=lambda theta: F.cross_entropy(
            functional_call(case.student, theta, (case.x_NCHW,)).outputs["head"], case.classes_N
        ),
        theta=theta,
        velocity={name: 0.1 * torch.randn_like(value) for name, value in theta.items()},
        sgd=sgd,
        steps=steps,
    )


def to_phi(case: Case, weights_NK: Tensor, by_weights_NK: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(weights_NK, list(case.metas.parameters()), by_weights_NK))


SETTINGS = [Sgd(0.1, 0.0, 0.0), Sgd(0.1, 0.9, 0.0), Sgd(0.05, 0.9, 0.1)]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(("sgd", "sources"), [(SETTINGS[0], 1), (SETTINGS[1], 2), (SETTINGS[2], 2)])
def test_both_ways_agree(steps: int, sgd: Sgd, sources: int) -> None:
    case = l2t_nets.case(sources)
    _, pooled = case.held()
    look = ahead(case, steps, sgd)
    weights_NK = case.metas(pooled).product()
    found = gradient(look, weights_NK.detach())
    expected = torch.autograd.grad(
        unrolled(look, weights_NK), list(case.metas.parameters()), retain_graph=True
    )
    assert any(bool(g.abs().max() > 1e-4) for g in expected)
    for ours, theirs in zip(to_phi(case, weights_NK, found), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("sgd", SETTINGS[1:])
def test_the_gradient_is_that_of_central_differences(steps: int, sgd: Sgd) -> None:
    """By random directions in φ, with the plain loss after steps that nothing differentiates."""
    case = l2t_nets.case()
    _, pooled = case.held()
    look = ahead(case, steps, sgd)
    weights_NK = case.metas(pooled).product()
    found = to_phi(case, weights_NK, gradient(look, weights_NK.detach()))
    parameters = list(case.metas.parameters())
    start = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)

    def loss(shift: float, direction: list[Tensor]) -> float:
        with torch.no_grad():
            for p, before, along in zip(parameters, start, direction, strict=True):
                p.copy_(before + shift * along)
        return float(after(look, case.metas(pooled).product().detach()))

    for _ in range(3):
        direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
        slope = (loss(1e-5, direction) - loss(-1e-5, direction)) / 2e-5
        along = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
        assert along == pytest.approx(slope, rel=1e-5)
        assert abs(along) > 1e-4


def after(look: Lookahead, weights_NK: Tensor) -> Tensor:
    """Return L_org after steps of PyTorch's own SGD."""
    parameters: dict[str, Tensor] = {
        name: nn.Parameter(value.clone()) for name, value in look.theta.items()
    }
    optimiser = torch.optim.SGD(
        parameters.values(),
        lr=look.sgd.rate,
        momentum=look.sgd.momentum,
        weight_decay=look.sgd.weight_decay,
    )
    for name, parameter in parameters.items():
        optimiser.state[parameter]["momentum_buffer"] = look.velocity[name].clone()
    for step in range(look.steps + 1):
        loss = look.matching(parameters, weights_NK) if step < look.steps else look.task(parameters)
        optimiser.zero_grad()
        loss.backward()
        for parameter in parameters.values():  # torch would leave out what has no gradient
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
    return look.task(parameters).detach()


def test_dropout_and_batch_norm_are_one_function_in_all_passes() -> None:
    case = l2t_nets.case(norms=True)
    transfer, theta, _ = transfers(case)
    x, held = case.x_NCHW, case.held()[0]
    loss = lambda outputs: F.cross_entropy(outputs["head"], case.classes_N)  # noqa: E731
    theta.param_groups[0]["lr"] = 0.05
    case.student.train()
    look = transfer.lookahead(x, held, loss)
    weights_NK = case.metas(case.held()[1]).product().detach().requires_grad_()
    expected = torch.autograd.grad(unrolled(look, weights_NK), weights_NK)[0]
    torch.testing.assert_close(gradient(look, weights_NK.detach()), expected)
    assert float(look.task(look.theta)) == float(look.task(look.theta))
    assert float(look.task(look.theta)) != float(
        transfer.lookahead(x, held, loss).task(look.theta)
    )  # the next minibatch's draw is another


Matching = Callable[[dict[str, Tensor], Tensor], Tensor]


def scaled(factor: float, loss: Matching) -> Matching:
    return lambda parameters, weights_NK: factor * loss(parameters, weights_NK)


def transfers(case: Case, **changes: Any) -> tuple[Transfer, torch.optim.SGD, torch.optim.Adam]:
    theta = torch.optim.SGD(case.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    phi = torch.optim.Adam(case.metas.parameters(), lr=1e-2, weight_decay=1e-4)
    transfer = Transfer(
        case.student,
        case.sources,
        case.matching,
        case.metas,
        theta,
        phi,
        **changes,
    )
    return transfer, theta, phi


def test_a_step_is_the_five_parts_of_the_algorithm() -> None:
    """Two steps, beside the same parts put together here with the unrolled gradient."""
    ours, plain = l2t_nets.case(), l2t_nets.case()
    loss = lambda outputs: F.cross_entropy(outputs["head"], ours.classes_N)  # noqa: E731
    transfer, _, _ = transfers(ours, beta=0.7, inner_steps=3)
    _, theta, phi = transfers(plain)
    for _ in range(2):
        told = transfer.step(ours.x_NCHW, loss)
        held, pooled = plain.held()
        weights = plain.metas(pooled)
        run = plain.student(plain.x_NCHW, held)
        own = loss(run.outputs)
        theta.zero_grad()
        (own + 0.7 * matching_loss(run.distances_NK, weights.product().detach())).backward()
        theta.step()
        look = replace(
            ahead(plain, 3, Sgd(0.1, 0.9, 1e-4)),
            velocity={
                name: theta.state[p]["momentum_buffer"]
                for name, p in plain.student.named_parameters()
            },
        )
        look = replace(look, matching=scaled(0.7, look.matching))
        phi.zero_grad()
        unrolled(look, weights.product()).backward(inputs=list(plain.metas.parameters()))
        phi.step()
        assert told.task_loss == pytest.approx(float(own.detach()))
        means = [where_N.mean() for where_N in weights.where]
        torch.testing.assert_close(told.where_P, torch.stack(means).detach())
    for mine, other in ((ours.student, plain.student), (ours.metas, plain.metas)):
        for (name, value), expected in zip(
            mine.state_dict().items(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, expected, msg=name)


def test_virtual_steps_leave_no_trace_in_the_student() -> None:
    """With a meta rate of 0, θ, v and statistics are those of a run without virtual steps."""
    with_steps, without = l2t_nets.case(norms=True), l2t_nets.case(norms=True)
    for case in (with_steps, without):
        layer(case.student, "heads.0.drop", nn.Dropout).p = 0.0
    loss = lambda outputs: F.cross_entropy(outputs["head"], without.classes_N)  # noqa: E731
    transfer, theta, phi = transfers(with_steps)
    phi.param_groups[0]["lr"] = 0.0
    plain_theta = torch.optim.SGD(
        without.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
    )
    plain = Transfer(
        without.student, without.sources, without.matching, without.metas, plain_theta, None
    )
    for _ in range(3):
        transfer.step(with_steps.x_NCHW, loss)
        plain.step(without.x_NCHW, loss)
    for (name, value), expected in zip(
        with_steps.student.state_dict().items(), without.student.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    for one, other in zip(theta.state.values(), plain_theta.state.values(), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])


def test_the_meta_networks_move_once_a_period() -> None:
    case = l2t_nets.case(1)
    loss = lambda outputs: F.cross_entropy(outputs["head"], case.classes_N)  # noqa: E731
    transfer, _, _ = transfers(case, meta_period=3)
    moved = []
    for number in range(6):
        before = [p.detach().clone() for p in case.metas.parameters()]
        transfer.step(case.x_NCHW, loss, number)
        after_ = case.metas.parameters()
        moved.append(any(not torch.equal(b, p) for b, p in zip(before, after_, strict=True)))
    assert moved == [True, False, False, True, False, False]


def test_lambda_falls_where_a_source_does_harm() -> None:
    """One source knows the task, the other's maps are noise of the image: λ tells them apart."""
    torch.manual_seed(0)
    case = l2t_nets.case(2, torch.float32)
    metas = MetaNetworks(case.matching.channels)
    x_NCHW = torch.randn(48, *l2t_nets.IMAGE)
    classes_N = case.sources["s0"](x_NCHW).features["act2"].mean((2, 3)).argmax(1) % 3
    noise = case.sources["s1"].net
    assert isinstance(noise, nn.Sequential)
    with torch.no_grad():
        for parameter in noise.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter))
    theta = torch.optim.SGD(case.student.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    phi = torch.optim.Adam(metas.parameters(), lr=5e-3, weight_decay=1e-4)
    transfer = Transfer(case.student, case.sources, case.matching, metas, theta, phi)
    for _ in range(20):
        told = transfer.step(x_NCHW, lambda outputs: F.cross_entropy(outputs["head"], classes_N))
    by_source = {
        name: torch.stack(
            [
                w
                for w, pair in zip(told.where_P, case.matching.pairs, strict=True)
                if pair.source == name
            ]
        ).mean()
        for name in case.sources
    }
    assert by_source["s0"] > by_source["s1"] + 0.02
