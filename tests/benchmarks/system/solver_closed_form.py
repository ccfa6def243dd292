"""Time to the zero-sample solution: the closed form against the paper's optimisation.

Both solve the same least-squares problem over the same draws and pay for them. The optimisation is
back-distillation without samples from a random start. It is timed twice: with our pool of draws,
which already has what METHODS 1a gains, and as the paper runs it, each step with draws of its own
and a double backward pass (steps × the time of one such step). Its learning rate and length of run
are chosen beforehand from a grid, best counts, and that choosing is not timed. It has arrived when
its residual ‖α D'_S − D'_T‖ / ‖D'_T‖ is within 1% of the closed form's; if no run of the grid
arrives, the ratio, of the run that came closest, is a lower bound.

Shapes: N draws, C channels of x, M of h(x), H/W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from rootstock.common.distillation.problem import TransplantProblem
from rootstock.common.distillation.pseudo_gradients.adjoint import pseudo_gradient
from rootstock.common.distillation.pseudo_gradients.pool import DrawPool
from rootstock.common.distillation.settings import BackDistillationSettings, Draws
from rootstock.common.distillation.solvers.back_distillation import BackDistillation
from rootstock.common.distillation.solvers.closed_form import closed_form
from rootstock.common.distillation.solvers.penalties import PseudoGradientPenalty
from rootstock.common.nets.adapter import Adapter
from tests.benchmarks.harness.timing import in_turns
from tests.benchmarks.system.solver_cases import UNMEASURED, Case, Step

RATES = (3e-3, 1e-2, 3e-2, 1e-1)
WITHIN = 1.01
CHECK_EVERY = 5
"""Steps between looks at the residual, while choosing."""


@dataclass(frozen=True)
class Run:
    """How an optimisation went."""

    settings: BackDistillationSettings
    steps: int
    """Until it arrived, or all of them."""
    residual: float

    def arrived(self, target: float) -> bool:
        return self.residual <= WITHIN * target


def measure(case: Case, *, draws: int, lengths: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Return the row of one case; both use the same draws.

    The optimisation's runs are of these lengths in steps, each with every learning rate.
    """
    problem = case.problem()
    spec, drawn = case.adapter().spec, Draws(case.policy, draws, case.size)
    solve = partial(closed_form, problem, spec, drawn, permutation_C=case.permutation())
    target = solve()[1].residual
    # The same seed: the very draws that the closed form saw.
    pool = DrawPool.filled(problem, case.adapter(), drawn, 1 << 34)
    settings = partial(
        BackDistillationSettings,
        policy=case.policy,
        size=case.size,
        draws=draws,
        draws_per_step=32,
        seed=0,
    )
    runs = [
        _run(problem, case.adapter(), settings(steps=steps, learning_rate=rate), pool, target)
        for steps in lengths
        for rate in RATES
    ]
    arrived = [run for run in runs if run.arrived(target)]
    best = min(arrived or runs, key=lambda run: run.steps if arrived else run.residual)

    def optimise() -> None:
        learning = BackDistillation(problem, case.adapter(), None, best.settings)
        for _ in range(best.steps):
            learning.step()

    closed, optimised, paper_step = in_turns(
        [solve, optimise, Step(case).double_backward], rounds, case.device
    )
    return UNMEASURED | {
        "net": case.net,
        "device": case.device,
        # The paper's optimisation draws anew in each step and goes back twice.
        "closed_form_speedup": round(best.steps * paper_step / closed, 2),
        "closed_form_speedup_against_pool": round(optimised / closed, 2),
        "closed_form_is_lower_bound": not arrived,
        "setting": "one net, reordered" if case.reordered else "two nets of one start",
        "closed_form_residual": target,
        "optimised_residual": best.residual,
        "optimised_steps": best.steps,
        "learning_rate": best.settings.learning_rate,
        "closed_form_seconds": closed,
        "optimised_seconds": optimised,
        "policy": case.policy,
        "size": case.size,
        "kernel": case.kernel,
        "draws": draws,
    }


def _run(
    problem: TransplantProblem,
    adapter: Adapter,
    settings: BackDistillationSettings,
    pool: DrawPool,
    target: float,
) -> Run:
    penalty = PseudoGradientPenalty(
        problem, pool, weight=settings.distillation, draws_per_step=settings.draws_per_step
    )
    learning = BackDistillation(problem, adapter, None, settings, penalty)
    while True:
        steps = learning.step().step
        if steps % CHECK_EVERY and not learning.done:
            continue
        with torch.no_grad():
            D_S_NCHW = pseudo_gradient(adapter, pool.V_NMHW, input_shape_CHW=problem.feature_shape)
        difference = pool.alpha * D_S_NCHW - pool.D_T_NCHW
        run = Run(settings, steps, float(difference.norm() / pool.D_T_NCHW.norm()))
        if learning.done or run.arrived(target):
            return run
