"""What the settings have to show, measured on their rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.papers.recombine import extractors, transfer, uda
from tests.benchmarks.papers.recombine.pair_settings import JOINT
from tests.benchmarks.papers.recombine.pairs import ALL
from tests.benchmarks.papers.recombine.rows import UPPER, Row, average, chosen

NEAR_CHANCE = 5.0
"""Points above chance that independent nets may be."""
ABOVE = 5.0
"""Points above independent nets from which a condition is clearly better."""
SHARE = 0.9
"""Of the upper bound, for all three conditions together."""
NEAR_BOUND = 1.1
"""Points below the upper bound where tasks are the same (paper, B.2)."""
NEAR_JOINT = 5.0
"""Points that incremental training may cost (paper: 4.0)."""
NEAR_ALONE = 5.0
"""Points that a head that was carried over may be below one trained with its extractor."""
ALIKE = 0.5
"""Rank correlation from which a ranking helps to choose a source."""
OWN = 1.0
"""Points that a net's own accuracy may fall by; less is no fall that three seeds can show."""


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the goals that the rows say something about."""
    made: dict[str, Callable[[Sequence[Row]], list[Goal]]] = {
        "analysis": _analysis,
        "incremental": _incremental,
        "bound": _bound,
        "split": _split,
        "classes": _classes,
        "uda": _uda,
        "transfer": _transfer,
        "architectures": _architectures,
    }
    setting = rows[0].setting
    return made[setting](rows) if setting in made else []


def _analysis(rows: Sequence[Row]) -> list[Goal]:
    alone = _mean(rows, "independent")
    above = alone - rows[0].chance
    found = [
        Goal(
            "independent nets above chance",
            "−0.5 points",
            f"≤ {NEAR_CHANCE:.0f} points",
            f"{above:+.1f} points",
            above <= NEAR_CHANCE,
        )
    ]
    for method, papers in (("iiw", "+14.5"), ("rp", "+39.5"), ("dcc", "+55.2")):
        better = _mean(rows, method) - alone
        found.append(
            Goal(
                f"{method} above independent nets",
                f"{papers} points",
                f"≥ {ABOVE:.0f} points",
                f"{better:+.1f} points",
                better >= ABOVE,
            )
        )
    share = _mean(rows, ALL) / _mean(rows, UPPER)
    found.append(
        Goal(
            f"{ALL} as a share of the upper bound",
            "90%",
            f"≥ {SHARE:.0%}",
            f"{share:.0%}",
            share >= SHARE,
        )
    )
    return [*found, _own(rows)]


def _incremental(rows: Sequence[Row]) -> list[Goal]:
    below = _mean(rows, JOINT) - _mean(rows, ALL)
    return [
        Goal(
            f"incremental {ALL} below joint",
            "4.0 points",
            f"≤ {NEAR_JOINT:.0f} points",
            f"{below:.1f} points",
            below <= NEAR_JOINT,
        ),
        _own(rows),
    ]


def _bound(rows: Sequence[Row]) -> list[Goal]:
    found = []
    for method in ("iiw+rp", "iiw+dcc", ALL):
        below = _mean(rows, UPPER) - _mean(rows, method)
        found.append(
            Goal(
                f"{method} below the upper bound",
                "≤ 1.1 points",
                f"≤ {NEAR_BOUND} points",
                f"{below:.1f} points",
                below <= NEAR_BOUND,
            )
        )
    return [*found, _own(rows)]


def _split(rows: Sequence[Row]) -> list[Goal]:
    layers = list(dict.fromkeys(row.case for row in rows if row.case))
    early, late = (_mean(rows, "iiw+rp", case=layer) for layer in (layers[0], layers[-1]))
    return [
        Goal(
            f"split after {layers[0]} above {layers[-1]}",
            "earlier is better",
            "> 0",
            f"{early - late:+.1f} points",
            early > late,
        )
    ]


def _classes(rows: Sequence[Row]) -> list[Goal]:
    counts = sorted({int(row.case) for row in rows if row.case})
    few, many = (_mean(rows, "iiw+dcc", case=str(n)) for n in (counts[0], counts[-1]))
    rotation = _mean(rows, "iiw+rp")
    return [
        Goal(
            f"{counts[-1]} classes above {counts[0]}",
            "more is better",
            "> 0",
            f"{many - few:+.1f} points",
            many > few,
        ),
        Goal(
            f"iiw+dcc on {counts[-1]} classes above iiw+rp",
            "yes (with 9 of 9 classes)",
            "> 0",
            f"{many - rotation:+.1f} points",
            many > rotation,
        ),
    ]


def _uda(rows: Sequence[Row]) -> list[Goal]:
    source, statistics, adapted = (
        _mean(rows, method) for method in (uda.SOURCE, uda.STATISTICS, uda.ADAPTED)
    )
    return [
        Goal(
            f"{what} above {than}",
            papers,
            "> 0",
            f"{better:+.1f} points",
            better > 0,
        )
        for what, than, papers, better in (
            (uda.ADAPTED, uda.STATISTICS, "+1.2 points", adapted - statistics),
            (uda.ADAPTED, uda.SOURCE, "+12.8 points", adapted - source),
        )
    ]


def _architectures(rows: Sequence[Row]) -> list[Goal]:
    papers = {"small-resnet": "−2.9 points", "mobilenetv2": "−1.7 points"}
    found = []
    for name, said in papers.items():
        below = _mean(rows, UPPER, case=name) - _mean(rows, extractors.CARRIED, case=name)
        found.append(
            Goal(
                f"the head carried over to {name}, against its upper bound",
                said,
                f"≥ −{NEAR_ALONE:.0f} points",
                f"{-below:+.1f} points",
                below <= NEAR_ALONE,
            )
        )
    return found


def _transfer(rows: Sequence[Row]) -> list[Goal]:
    ours, alone = (
        _mean(rows, method, case="0") for method in (transfer.COMPATIBLE, transfer.INDEPENDENT)
    )
    chance = mean(row.chance for row in rows)
    found = [
        Goal(
            f"{transfer.COMPATIBLE} without fine-tuning, above independent nets",
            "+30 to +56 points",
            f"≥ {ABOVE:.0f} points",
            f"{ours - alone:+.1f} points",
            ours - alone >= ABOVE,
        ),
        Goal(
            "independent nets without fine-tuning, above chance",
            "0 points",
            f"≤ {NEAR_CHANCE:.0f} points",
            f"{alone - chance:+.1f} points",
            alone - chance <= NEAR_CHANCE,
        ),
    ]
    for other in (transfer.COMPATIBLE, transfer.NEW):
        alike = transfer.rank_correlation(rows, transfer.COMPATIBLE, other)
        found.append(
            Goal(
                f"sources ranked without fine-tuning, and after it ({other}): Spearman's ρ",
                "not measured",
                f"≥ {ALIKE}",
                f"{alike:.2f}",
                alike >= ALIKE,
            )
        )
    return found


def _own(rows: Sequence[Row]) -> Goal:
    change = _mean(rows, ALL, "own_accuracy") - _mean(rows, UPPER, "own_accuracy")
    return Goal(
        f"{ALL}: a net's own accuracy against the upper bound's",
        "+0.7 points",
        f"≥ −{OWN:.0f} point",
        f"{change:+.1f} points",
        change >= -OWN,
    )


def _mean(
    rows: Sequence[Row], method: str, what: str = "accuracy", case: str | None = None
) -> float:
    found = average(chosen(rows, method, case), what)
    assert found is not None  # every setting measures its methods
    return found.mean
