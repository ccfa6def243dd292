"""Which pairs of nets each setting of the analysis trains (paper, section 4 and appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.papers.recombine import data, pairs
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.pairs import ALL, PairCell, PairConfig, Scheme
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.transplant import datasets

JOINT = f"joint {ALL}"
"""What incremental training is held against."""


def measure(setting: str, request: Request[Budget], run: Workers) -> list[Row]:
    """Train a setting's pairs side by side; return their rows, seed by seed."""
    datasets.load("cifar10", request.folders)  # once, before the processes start
    return run.rows("nets", pairs.run, cells(setting, request))


def cells(setting: str, request: Request[Budget]) -> list[PairCell]:
    """Return the pairs of a setting, seed by seed."""
    made = (cell for seed in request.seeds for cell in SETTINGS[setting](request, seed))
    return [replace(cell, setting=setting) for cell in made]


def _analysis(request: Request[Budget], seed: int) -> list[PairCell]:
    conditions = ("independent", "iiw", "rp", "dcc", ALL, UPPER)
    return [_cell(request, seed, condition) for condition in conditions]


def _incremental(request: Request[Budget], seed: int) -> list[PairCell]:
    # The paper trains both orders; here they take turns over seeds, which halves the time.
    scheme: Scheme = "a first" if seed % 2 == 0 else "b first"
    return [
        *(_cell(request, seed, condition, scheme=scheme) for condition in ("rp", "dcc", ALL)),
        _cell(request, seed, ALL, method=JOINT),
        _cell(request, seed, UPPER),
    ]


def _bound(request: Request[Budget], seed: int) -> list[PairCell]:
    conditions = ("independent", "iiw+rp", "iiw+dcc", ALL, UPPER)
    return [_cell(request, seed, condition, without=data.SAME) for condition in conditions]


def _split(request: Request[Budget], seed: int) -> list[PairCell]:
    blocks = request.budget.blocks
    layers = dict.fromkeys(f"block{stage}_{b}" for stage in (1, 2, 3) for b in (1, blocks))
    return [
        *(_cell(request, seed, "iiw+rp", case=layer, split=layer) for layer in layers),
        _cell(request, seed, UPPER),
    ]


def _classes(request: Request[Budget], seed: int) -> list[PairCell]:
    most = _in_common(data.OVERLAPPING)
    counts = range(2, most + 1)
    return [
        *(_cell(request, seed, "iiw+dcc", case=str(n), common_classes=n) for n in counts),
        _cell(request, seed, "iiw+rp"),
        _cell(request, seed, UPPER),
    ]


SETTINGS: dict[str, Callable[[Request[Budget], int], list[PairCell]]] = {
    "analysis": _analysis,
    "incremental": _incremental,
    "bound": _bound,
    "split": _split,
    "classes": _classes,
}


def _in_common(without: tuple[tuple[str, ...], tuple[str, ...]]) -> int:
    """Return how many classes nets have in common that do without these."""
    return len(set(data.ordered(*without)) & set(data.ordered(*reversed(without))))


def _cell(
    request: Request[Budget],
    seed: int,
    condition: str,
    *,
    method: str = "",
    case: str = "",
    scheme: Scheme = "joint",
    without: tuple[tuple[str, ...], tuple[str, ...]] = data.OVERLAPPING,
    split: str = "",
    common_classes: int | None = None,
) -> PairCell:
    budget = request.budget
    config = PairConfig(
        architecture=ArchitectureSpec(
            name="small-resnet",
            split=split or f"block2_{budget.blocks}",
            settings={"blocks": budget.blocks, "width": budget.width},
        ),
        without=without,
        condition=condition,
        scheme=scheme,
        # Pairs without a DCC head are the same whatever it would tell apart.
        common_classes=(common_classes or _in_common(without)) if "dcc" in condition else 0,
        training=budget.photographs,
        seed=seed,
        device=request.device,
    )
    return PairCell(request, config, method or condition, case)
