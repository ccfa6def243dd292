"""Time and memory of a step by adjoints against the double backward pass, and of draws alone.

Each of the two ways has its peak memory read in a fresh process of its own: run as a module, this
file is that process.

Shapes: N draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rootstock.common.errors import TransplantError
from tests.benchmarks.harness.memory import peak_of, print_peak
from tests.benchmarks.harness.timing import in_turns, seconds, wait
from tests.benchmarks.system.solver_cases import CASES, UNMEASURED, Case, Step, disagreement

MAX_DISAGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""‖a − b‖ / ‖b‖ of the two ways' gradients; more, and the row would compare different things."""


def measure(name: str, case: Case, *, rounds: int) -> dict[str, Any]:
    """Return the row of one case; a fresh process finds it in `CASES` by its name."""
    step = Step(case)
    error = disagreement(step.fresh(), step.double_backward())
    if not error <= MAX_DISAGREEMENT[case.dtype]:
        raise TransplantError(
            f"{name}: adjoints and double backward differ by {error:.1e} of the gradient; a "
            "layer's rule is wrong: run tests/unit/common/distillation"
        )
    fresh, slow, pooled, maps = in_turns(
        [step.fresh, step.double_backward, step.pooled, step.maps], rounds, case.device
    )
    rate, bound = case.draws / maps, draw_bound(step)
    flops = {way: _flops(getattr(step, way)) for way in ("fresh", "double_backward")}
    peaks = {way: _peak(name, way, step) for way in ("fresh", "double_backward")}
    return UNMEASURED | {
        "net": case.net,
        "device": case.device,
        "adjoint_speedup": round(slow / fresh, 2),
        "adjoint_memory_ratio": round(peaks["double_backward"] / max(1, peaks["fresh"]), 2),
        "draws_per_second": rate,
        "bound_draws_per_second": bound,
        "pooled_step_speedup": round(slow / pooled, 2),
        "flops_ratio": round(flops["double_backward"] / flops["fresh"], 2),
        "adjoint_peak_bytes": peaks["fresh"],
        "double_backward_peak_bytes": peaks["double_backward"],
        "gradient_disagreement": error,
        "policy": case.policy,
        "size": case.size,
        "kernel": case.kernel,
        "draws": case.draws,
        "dtype": str(case.dtype).removeprefix("torch."),
    }


def draw_bound(step: Step) -> float:
    """Return the most draws (V, D'_T) a second that the machine's measured rates allow.

    FLOPs of the layers over the rate of a large matrix product, or bytes (weights once a batch;
    each gradient map written and read once, each mask read once) over the rate of a large copy:
    whichever takes longer.
    """
    case = step.case
    width = torch.empty((), dtype=case.dtype).element_size()
    tasks = (step.problem.teacher_task, step.problem.student_task)
    weights = sum(p.numel() for task in tasks for p in task.parameters() if p.ndim > 1)
    maps = sum(torch.Size(shape).numel() for shape in step.relu_maps().values())
    masks = sum(mask.numel() for mask in step.draw.masks.values())
    moved = width * (weights + 2 * len(tasks) * maps * case.draws) + len(tasks) * masks
    flops_per_second, bytes_per_second = peak_rates(case.device, case.dtype)
    least = max(_flops(step.maps) / flops_per_second, moved / bytes_per_second)
    return case.draws / least


def peak_rates(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """Measure FLOP/s of a large matrix product, and bytes/s (read and written) of a large copy."""
    side, elements = (8192, 1 << 28) if device.startswith("cuda") else (2048, 1 << 24)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(elements, device=device)
    target = torch.empty_like(source)
    product = min(seconds(lambda: a @ b, device) for _ in range(5))
    copying = min(seconds(lambda: target.copy_(source), device) for _ in range(5))
    return 2 * side**3 / product, 2 * 4 * elements / copying


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the FLOPs of convolutions and matrix products.

    With torch's formulas; its own FlopCounterMode cannot see a double backward pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=output)
        return output


def _flops(work: Callable[[], object]) -> int:
    with _Counter() as counter:
        work()
    flops: int = counter.flops
    return flops


def _peak(name: str, way: str, step: Step) -> int:
    """Return the bytes that one step of one way adds at its peak."""
    device = step.case.device
    if device.startswith("cuda"):
        wait(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        getattr(step, way)()
        wait(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    return peak_of(__name__, name, way)


def main(name: str, way: str) -> None:
    """Be the process of one way."""
    step = Step(CASES[name])
    step.prepare(way)
    # The same layers on maps of a few pixels: what libraries set up once is not a step's memory.
    getattr(Step(CASES["tiny"]), way)()
    print_peak(getattr(step, way))


if __name__ == "__main__":
    main(*sys.argv[1:])
