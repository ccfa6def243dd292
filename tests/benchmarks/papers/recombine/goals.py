"""What the settings have to show, measured on their rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

from tests.benchmarks.harness import rows as of
from tests.benchmarks.harness.goal import Goal, compared
from tests.benchmarks.harness.rows import chosen, distinct
from tests.benchmarks.papers.recombine import extractors, transfer, uda
from tests.benchmarks.papers.recombine.pair_settings import JOINT
from tests.benchmarks.papers.recombine.pairs import ALL
from tests.benchmarks.papers.recombine.rows import UPPER, Row

ABOVE = "≥ 5 points"
"""Above independent nets: from there a condition is clearly better."""
NEAR_CHANCE = "≤ 5 points"


def goals(rows: Sequence[Row]) -> list[Goal]:
    return _GOALS[rows[0].setting](rows)


def _analysis(rows: Sequence[Row]) -> list[Goal]:
    alone = _mean(rows, "independent")
    what = "independent nets above chance"
    found = [compared(what, "−0.5 points", NEAR_CHANCE, alone - rows[0].chance)]
    for method, papers in (("iiw", "+14.5"), ("rp", "+39.5"), ("dcc", "+55.2")):
        what = f"{method} above independent nets"
        found.append(compared(what, f"{papers} points", ABOVE, _mean(rows, method) - alone))
    share = 100 * _mean(rows, ALL) / _mean(rows, UPPER)
    what = f"{ALL} as a share of the upper bound"
    return [*found, compared(what, "90%", "≥ 90%", share, "{:.0f}%"), _own(rows)]


def _incremental(rows: Sequence[Row]) -> list[Goal]:
    below = _mean(rows, JOINT) - _mean(rows, ALL)
    what = f"incremental {ALL} below joint"
    return [compared(what, "4.0 points", "≤ 5 points", below, "{:.1f} points"), _own(rows)]


def _bound(rows: Sequence[Row]) -> list[Goal]:
    found = []
    for method in ("iiw+rp", "iiw+dcc", ALL):
        below = _mean(rows, UPPER) - _mean(rows, method)
        what = f"{method} below the upper bound"
        # Where tasks are the same (paper, B.2).
        found.append(compared(what, "≤ 1.1 points", "≤ 1.1 points", below, "{:.1f} points"))
    return [*found, _own(rows)]


def _split(rows: Sequence[Row]) -> list[Goal]:
    first, *_, last = (layer for layer in distinct(rows, "case") if layer)
    better = _mean(rows, "iiw+rp", case=first) - _mean(rows, "iiw+rp", case=last)
    return [compared(f"split after {first} above {last}", "earlier is better", "> 0", better)]


def _classes(rows: Sequence[Row]) -> list[Goal]:
    few, *_, most = sorted(int(case) for case in distinct(rows, "case") if case)
    many = _mean(rows, "iiw+dcc", case=str(most))
    more = many - _mean(rows, "iiw+dcc", case=str(few))
    other = many - _mean(rows, "iiw+rp")
    papers = "yes (with 9 of 9 classes)"
    return [
        compared(f"{most} classes above {few}", "more is better", "> 0", more),
        compared(f"iiw+dcc on {most} classes above iiw+rp", papers, "> 0", other),
    ]


def _uda(rows: Sequence[Row]) -> list[Goal]:
    adapted = _mean(rows, uda.ADAPTED)
    return [
        compared(f"{uda.ADAPTED} above {than}", papers, "> 0", adapted - _mean(rows, than))
        for than, papers in ((uda.STATISTICS, "+1.2 points"), (uda.SOURCE, "+12.8 points"))
    ]


def _architectures(rows: Sequence[Row]) -> list[Goal]:
    found = []
    for name, papers in (("small-resnet", "−2.9 points"), ("mobilenetv2", "−1.7 points")):
        above = _mean(rows, extractors.CARRIED, case=name) - _mean(rows, UPPER, case=name)
        what = f"the head carried over to {name}, against its upper bound"
        found.append(compared(what, papers, "≥ −5 points", above))
    return found


def _transfer(rows: Sequence[Row]) -> list[Goal]:
    ours, alone = (
        _mean(rows, method, case="0") for method in (transfer.COMPATIBLE, transfer.INDEPENDENT)
    )
    what = f"{transfer.COMPATIBLE} without fine-tuning, above independent nets"
    found = [compared(what, "+30 to +56 points", ABOVE, ours - alone)]
    what = "independent nets without fine-tuning, above chance"
    chance = mean(row.chance for row in rows)
    found.append(compared(what, "0 points", NEAR_CHANCE, alone - chance))
    for other in (transfer.COMPATIBLE, transfer.NEW):
        alike = transfer.rank_correlation(rows, transfer.COMPATIBLE, other)
        what = f"sources ranked without fine-tuning, and after it ({other}): Spearman's ρ"
        # From there a ranking helps to choose a source.
        found.append(compared(what, "not measured", "≥ 0.5", alike, "{:.2f}"))
    return found


def _own(rows: Sequence[Row]) -> Goal:
    change = _mean(rows, ALL, "own_accuracy") - _mean(rows, UPPER, "own_accuracy")
    what = f"{ALL}: a net's own accuracy against the upper bound's"
    # Less is no fall that three seeds can show.
    return compared(what, "+0.7 points", "≥ −1 point", change)


def _mean(rows: Sequence[Row], method: str, value: str = "accuracy", **wanted: object) -> float:
    return of.mean(chosen(rows, method=method, **wanted), value)


_GOALS: dict[str, Callable[[Sequence[Row]], list[Goal]]] = {
    "analysis": _analysis,
    "incremental": _incremental,
    "bound": _bound,
    "split": _split,
    "classes": _classes,
    "uda": _uda,
    "transfer": _transfer,
    "architectures": _architectures,
}
