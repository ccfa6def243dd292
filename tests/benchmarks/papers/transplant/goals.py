"""What the experiments have to show, measured on their rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.harness.goal import Goal, compared
from tests.benchmarks.harness.rows import Interval, average, chosen, distinct
from tests.benchmarks.papers.shared.datasets import PRETRAINED
from tests.benchmarks.papers.transplant.cells import AUTO, CEILING, PAPER_1, PAPER_2, SMALLEST, Row

Kind = tuple[str, str]
"""A method and its adapter."""
OURS: Kind = ("auto", AUTO)
BASELINE: Kind = ("direct-learn", PAPER_2)
PLAIN: Kind = ("identity", AUTO)


def _as_shown(rows: Sequence[Row], kind: Kind) -> Kind:
    """Return a kind with the adapter that it has on the rows' data."""
    return (kind[0], SMALLEST) if rows[0].data == PRETRAINED else kind


def goals(rows: Sequence[Row]) -> list[Goal]:
    made = {1: _experiment_1, 2: _experiment_2, 3: _experiment_3, 4: _experiment_4}
    return made[rows[0].experiment](rows)


def _experiment_1(rows: Sequence[Row]) -> list[Goal]:
    return [
        compared(
            f"zero samples, {adapter}, {method}: error above the teacher's",
            papers,
            "≤ 0.2 points",
            mine - teacher(rows).mean,
            "{:+.2f} points",
        )
        for adapter, papers in zip(PAPER_1, ("−0.03 points", "49.90% (chance)"), strict=True)
        for method in ("closed-form", "auto")
        if (mine := _mean(rows, (method, adapter), 0)) is not None
    ]


def _experiment_2(rows: Sequence[Row]) -> list[Goal]:
    papers = {10: "0.98", 20: "0.76", 50: "0.59", 100: "0.38"}
    found = []
    for count in counts(rows):
        share = ratio(rows, OURS, BASELINE, count) if count else None
        if share is not None:
            what = f"{count} samples: (auto − teacher) / (direct-learn − teacher)"
            bar = "≤ 0.25" if rows[0].data == PRETRAINED else "≤ 0.5"
            found.append(compared(what, papers.get(count, "–"), bar, share, "{:.2f}"))
    hundred = _mean(rows, BASELINE, 100)
    for count, bar in ((10, "below"), (0, "no worse than")):
        mine = _mean(rows, OURS, count)
        if mine is not None and hundred is not None:
            found.append(
                Goal(
                    f"{count} samples, auto against direct-learn with 100",
                    "38.66 against 15.72" if count else "not tried",
                    bar,
                    f"{mine:.1f} against {hundred:.1f}",
                    mine < hundred if count else mine <= hundred,
                )
            )
    bar = {"digits": "≤ 0.35", PRETRAINED: "≤ 0.2"}.get(rows[0].data, "")
    if bar and (share := ratio(rows, OURS, PLAIN, 0)) is not None:
        what = "zero samples: (auto − teacher) / (no adapter − teacher)"
        found.append(compared(what, "–", bar, share, "{:.2f}"))
    if rows[0].data == PRETRAINED:
        error = teacher(rows).mean
        found.append(compared("teachers' error", "1.78%", "≤ 8%", error, "{:.1f}%"))
        refined = average(chosen(rows, method=CEILING), "error")
        if refined is not None:
            what = "learned from all of a lab's images: error above the teacher's"
            found.append(compared(what, "–", "≤ 1.5 points", refined.mean - error))
    return found


def _experiment_3(rows: Sequence[Row]) -> list[Goal]:
    ours = next((kind for kind in kinds(rows) if kind[0] == "auto"), None)
    if ours is None:
        return []
    found, best = [], teacher(rows).mean
    for count in counts(rows):
        for other in ("direct-learn", "distill"):
            mine, theirs = _mean(rows, ours, count), _mean(rows, (other, "1x1"), count)
            if count == 0 or mine is None or theirs is None:
                continue
            room, better = best - theirs, mine - theirs
            found.append(
                Goal(
                    f"{count} samples: auto above {other}",
                    "+10 points",
                    "≥ +10 where there is room",
                    f"{better:+.1f} points, of {room:.1f} that are left to the teacher",
                    None if room < 10 else better >= 10,
                )
            )
    if (mine := _mean(rows, ours, 100)) is not None:
        what = "100 samples: auto below the teacher"
        found.append(compared(what, "7 points", "≤ 3 points", best - mine, "{:.1f} points"))
    return found


def _experiment_4(rows: Sequence[Row]) -> list[Goal]:
    papers = {10: -6.18, 20: -9.28, 50: -9.92, 100: -11.34}
    found = []
    for count in counts(rows):
        mine, theirs = _mean(rows, OURS, count), _mean(rows, BASELINE, count)
        if count and mine is not None and theirs is not None:
            said = f"{papers[count]:.1f} points" if count in papers else "–"
            what, above = f"{count} samples: auto against direct-learn", mine - theirs
            found.append(Goal(what, said, "below 0", f"{above:+.1f} points", above < 0))
    return found


def kinds(rows: Sequence[Row]) -> list[Kind]:
    return distinct(rows, "method", "adapter")


def counts(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of samples, fewest first; the ceiling's, all, is no number."""
    return sorted(count for count in distinct(rows, "samples") if count >= 0)


def of(rows: Sequence[Row], kind: Kind, samples: int) -> list[Row]:
    """Return the rows of one method and adapter with that many samples."""
    return chosen(rows, method=kind[0], adapter=kind[1], samples=samples)


def teacher(rows: Sequence[Row]) -> Interval:
    """Return the teachers' mean, each lab counted once."""
    found = average({(row.category, row.seed): row for row in rows}.values(), "teacher")
    assert found is not None  # every row has its teacher's
    return found


def ratio(rows: Sequence[Row], ours: Kind, other: Kind, samples: int) -> float | None:
    """Return (ours − teacher) / (other − teacher), each a mean over categories and seeds."""
    means = []
    for kind in (ours, other):
        own = of(rows, _as_shown(rows, kind), samples)
        found = average(own, "measured")
        if found is None:
            return None
        means.append(found.mean - teacher(own).mean)
    # Where the other is no worse than the teacher there is nothing to be a ratio of.
    return None if means[1] <= 0 else means[0] / means[1]


def _mean(rows: Sequence[Row], kind: Kind, samples: int) -> float | None:
    found = average(of(rows, _as_shown(rows, kind), samples), "measured")
    return None if found is None else found.mean
