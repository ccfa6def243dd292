"""Which pairs of nets each setting of the analysis trains (paper, section 4 and appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from rich.console import Console

from rootstock.common.nets.spec import ArchitectureSpec
from tests.benchmarks.harness.pool import run_all
from tests.benchmarks.papers.recombine import data, pairs
from tests.benchmarks.papers.recombine.pairs import ALL, PairCell, PairConfig, Scheme
from tests.benchmarks.papers.recombine.request import Request
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.transplant import datasets

JOINT = f"joint {ALL}"
"""What incremental training is held against."""


def measure(request: Request, pool: ProcessPoolExecutor, console: Console) -> list[Row]:
    """Train a setting's pairs side by side; return their rows, seed by seed."""
    datasets.load("cifar10", request.root, request.cache)  # once, before the processes start
    found = run_all(pool, "nets", pairs.run, cells(request), console)
    return [row for rows in found for row in rows]


def cells(request: Request) -> list[PairCell]:
    """Return the pairs of a setting, seed by seed."""
    make = SETTINGS[request.setting]
    return [cell for seed in range(request.seeds) for cell in make(request, seed)]


def _analysis(request: Request, seed: int) -> list[PairCell]:
    conditions = ("independent", "iiw", "rp", "dcc", ALL, UPPER)
    return [_cell(request, seed, condition) for condition in conditions]


def _incremental(request: Request, seed: int) -> list[PairCell]:
    # The paper trains both orders; here they take turns over seeds, which halves the time.
    scheme: Scheme = "a first" if seed % 2 == 0 else "b first"
    return [
        *(_cell(request, seed, condition, scheme=scheme) for condition in ("rp", "dcc", ALL)),
        _cell(request, seed, ALL, method=JOINT),
        _cell(request, seed, UPPER),
    ]


def _bound(request: Request, seed: int) -> list[PairCell]:
    conditions = ("independent", "iiw+rp", "iiw+dcc", ALL, UPPER)
    return [_cell(request, seed, condition, without=data.SAME) for condition in conditions]


def _split(request: Request, seed: int) -> list[PairCell]:
    blocks = request.budget.blocks
    layers = dict.fromkeys(f"block{stage}_{b}" for stage in (1, 2, 3) for b in (1, blocks))
    return [
        *(_cell(request, seed, "iiw+rp", case=layer, split=layer) for layer in layers),
        _cell(request, seed, UPPER),
    ]


def _classes(request: Request, seed: int) -> list[PairCell]:
    most = _in_common(data.OVERLAPPING)
    counts = range(2, most + 1)
    return [
        *(_cell(request, seed, "iiw+dcc", case=str(n), common_classes=n) for n in counts),
        _cell(request, seed, "iiw+rp"),
        _cell(request, seed, UPPER),
    ]


SETTINGS: dict[str, Callable[[Request, int], list[PairCell]]] = {
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
    request: Request,
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
    return PairCell(
        setting=request.setting,
        method=method or condition,
        case=case,
        config=config,
        unlabelled=budget.unlabelled,
        test_images=budget.test_images,
        root=request.root,
        cache=request.cache,
    )
