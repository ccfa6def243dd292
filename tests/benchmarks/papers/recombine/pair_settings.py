"""Which pairs of nets each setting of the analysis trains (paper, section 4 and appendix B)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.harness.pool import Workers
from tests.benchmarks.harness.request import Request
from tests.benchmarks.papers.recombine import pairs
from tests.benchmarks.papers.recombine.budget import Budget
from tests.benchmarks.papers.recombine.pairs import ALL, PairCell, PairConfig, Scheme
from tests.benchmarks.papers.recombine.rows import UPPER, Row
from tests.benchmarks.papers.shared import data, datasets

JOINT = f"joint {ALL}"
"""What incremental training is held against."""
MOST = len(set(data.ordered(*data.OVERLAPPING)) & set(data.ordered(*data.OVERLAPPING[::-1])))
"""Classes that nets have in common unless both have all."""


@dataclass(frozen=True)
class Pair:
    """One pair of a setting; the request says the rest."""

    condition: str
    case: str = ""
    method: str = ""
    """Its name in tables, if not the condition's."""
    scheme: Scheme = "joint"
    without: tuple[tuple[str, ...], tuple[str, ...]] = data.OVERLAPPING
    split: str = ""
    common_classes: int = MOST


def settings(blocks: int, seed: int) -> dict[str, list[Pair]]:
    """Return every setting's pairs of a seed, for ResNets with that many blocks a stage."""
    # The paper trains both orders; here they take turns over seeds, which halves the time.
    scheme: Scheme = "a first" if seed % 2 == 0 else "b first"
    layers = dict.fromkeys(f"block{stage}_{b}" for stage in (1, 2, 3) for b in (1, blocks))
    upper = Pair(UPPER)
    return {
        "analysis": [*map(Pair, ("independent", "iiw", "rp", "dcc", ALL)), upper],
        "incremental": [
            *(Pair(condition, scheme=scheme) for condition in ("rp", "dcc", ALL)),
            Pair(ALL, method=JOINT),
            upper,
        ],
        "bound": [
            Pair(condition, without=data.SAME, common_classes=len(datasets.CIFAR10))
            for condition in ("independent", "iiw+rp", "iiw+dcc", ALL, UPPER)
        ],
        "split": [*(Pair("iiw+rp", case=layer, split=layer) for layer in layers), upper],
        "classes": [
            *(Pair("iiw+dcc", case=str(n), common_classes=n) for n in range(2, MOST + 1)),
            Pair("iiw+rp"),
            upper,
        ],
    }


def measure(setting: str, request: Request[Budget], run: Workers) -> list[Row]:
    """Train a setting's pairs side by side; return their rows, seed by seed."""
    datasets.load("cifar10", request.folders)  # once, before the processes start
    return run.rows("nets", pairs.run, cells(setting, request))


def cells(setting: str, request: Request[Budget]) -> list[PairCell]:
    """Return the pairs of a setting, seed by seed."""
    budget = request.budget
    return [
        PairCell(
            request,
            PairConfig(
                architecture=budget.resnet(pair.split),
                without=pair.without,
                condition=pair.condition,
                scheme=pair.scheme,
                # Pairs without a DCC head are the same whatever it would tell apart.
                common_classes=pair.common_classes if "dcc" in pair.condition else 0,
                training=budget.photographs,
                seed=seed,
                device=request.device,
            ),
            pair.method or pair.condition,
            pair.case,
            setting,
        )
        for seed in request.seeds
        for pair in settings(budget.blocks, seed)[setting]
    ]
