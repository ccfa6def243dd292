"""``bench solver``: what pseudo-gradients by adjoints, the closed form and Ray actors gain.

All as ratios of things measured in turns in one run; the parts say how.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from rich.console import Console

from rootstock.common.errors import TransplantError
from tests.benchmarks.harness import results
from tests.benchmarks.system import solver_closed_form, solver_parallel, solver_speed
from tests.benchmarks.system.solver_cases import CASES, Case, Step, disagreement

CATEGORIES = 5
GPU_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 1e-1}
"""‖a − b‖ / ‖b‖ between a GPU's D'_T and the CPU's in float32."""


def measure(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Return the rows of `bench solver` (DESIGN section 8), machine, versions and threads.

    Quick: one net, fewer rounds and draws; under a minute on two cores.
    """
    rounds = 2 if quick else 9
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []

    def say(what: str) -> None:
        console.print(f"measures {what}")

    say(f"{CATEGORIES} categories on Ray actors")
    rows.append(
        solver_parallel.measure(
            CASES["small-vgg"].architecture,
            categories=CATEGORIES,
            draws=64 if quick else 512,
            steps=20 if quick else 200,
            cores=cores,
        )
    )
    for name in ("small-vgg",) if quick else ("small-vgg", "small-vgg-exp2"):
        say(f"steps of {name}")
        rows.append(solver_speed.measure(name, CASES[name], rounds=rounds))
    if quick:
        console.print("leaves out VGG-16 (--quick)")
    else:
        say("steps of vgg16")
        rows.append(solver_speed.measure("vgg16", CASES["vgg16"], rounds=3))
    for reordered in (True,) if quick else (True, False):
        for kernel in (1,) if quick else (1, 3):
            say(f"the closed form, {kernel}×{kernel}, {'one net' if reordered else 'two nets'}")
            rows.append(
                solver_closed_form.measure(
                    replace(CASES["small-vgg"], kernel=kernel, reordered=reordered),
                    draws=64 if quick else 512,
                    lengths=(100,) if quick else (100, 1000),
                    rounds=1 if quick else 3,
                )
            )
    if torch.cuda.is_available():
        for dtype in (torch.float32, torch.bfloat16):
            say(f"VGG-16 on the GPU, {dtype}")
            rows.append(on_gpu("vgg16", "cuda", dtype, rounds=rounds))
    else:
        console.print("there is no GPU: its rows are absent")
    return {
        "rows": rows,
        "quick": quick,
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": cores},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "ray", "rootstock-federation")},
        },
        "threads": torch.get_num_threads(),
    }


def on_gpu(name: str, device: str, dtype: torch.dtype, *, rounds: int) -> dict[str, Any]:
    """Return the row of a case on a GPU, checked against the CPU."""
    case = replace(CASES[name], device=device, dtype=dtype, draws=16)
    error = cpu_disagreement(name, case, tolerance=GPU_TOLERANCE[dtype])
    row = solver_speed.measure(name, case, rounds=rounds)
    return row | {"cpu_disagreement": error, "cpu_tolerance": GPU_TOLERANCE[dtype]}


def cpu_disagreement(name: str, case: Case, *, tolerance: float) -> float:
    """Return how far D'_T of one draw on another device is from the CPU's in float32."""
    there, here = (
        Step(replace(each, draws=1)).maps()[1].cpu().float() for each in (case, CASES[name])
    )
    error = disagreement([there], [here])
    if not error <= tolerance:
        raise TransplantError(
            f"{name}: D'_T on {case.device} in {case.dtype} differs from the CPU's by {error:.1e}, "
            f"more than {tolerance:g}; check the driver, or use float32"
        )
    return error


def section(result: dict[str, Any]) -> results.Section:
    lines: list[str] = []
    table(result["rows"], lines.append)
    quick = " --quick" if result["quick"] else ""
    return results.Section(
        "solver",
        "Time and memory of the maths",
        f"rootstock bench solver{quick}",
        "```\n" + "\n".join(lines) + "\n```",
    )


def table(rows: list[dict[str, Any]], write: Callable[[str], None]) -> None:
    """Write the rows for people, 80 columns at most."""
    write("a step by adjoints against the double backward pass (fresh: V and D'_T are")
    write("computed too, like for like; pooled: V and D'_T are reused)")
    write(
        f"{'net':<10}{'device':<7}{'draws':<9}{'policy':<6}{'fresh':>7}{'pooled':>8}{'memory':>8}"
        f"{'FLOPs':>7}{'draws/s':>9}{'of bound':>9}"
    )
    for row in rows:
        if row["adjoint_speedup"] is not None:
            share = row["draws_per_second"] / row["bound_draws_per_second"]
            dtype = {"float32": "f32", "bfloat16": "bf16"}[row["dtype"]]
            write(
                f"{row['net']:<10}{row['device']:<7}{row['draws']:<3} {dtype:<5}"
                f"{row['policy']:<6}{row['adjoint_speedup']:>6.2f}×"
                f"{row['pooled_step_speedup']:>7.1f}×{row['adjoint_memory_ratio']:>7.2f}×"
                f"{row['flops_ratio']:>6.2f}×{row['draws_per_second']:>9.2f}{share:>9.0%}"
            )
            write(f"  the two gradients differ by {row['gradient_disagreement']:.1e}")
    write("")
    write("the closed form against optimising to a residual within 1% of its own")
    write(f"{'net':<10}{'kernel':<7}{'setting':<23}{'pooled':>9}{'paper’s':>10}{'steps':>7}")
    for row in rows:
        if row["closed_form_speedup"] is not None:
            at_least = ">" if row["closed_form_is_lower_bound"] else ""
            pooled, paper = row["closed_form_speedup_against_pool"], row["closed_form_speedup"]
            write(
                f"{row['net']:<10}{row['kernel']}×{row['kernel']:<5}{row['setting']:<23}"
                f"{f'{at_least}{pooled:.1f}×':>9}{f'{at_least}{paper:.1f}×':>10}"
                f"{row['optimised_steps']:>7}"
            )
    write("")
    for row in rows:
        if "parallel_speedup" in row:
            write(
                f"{row['net']} on {row['cores']} cores: {row['parallel_speedup']:.2f}× "
                f"(at best {row['best_parallel_speedup']:.2f}×), actors' starts included "
                f"({row['actor_start_seconds']:.1f} s each)"
            )
