"""What the experiments have to show, measured on their rows: a line each, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.harness import goal
from tests.benchmarks.harness.goal import Goal
from tests.benchmarks.papers.transplant import summary
from tests.benchmarks.papers.transplant.cells import AUTO, PAPER_1, PAPER_2, Row

OURS = ("auto", AUTO)
BASELINE = ("direct-learn", PAPER_2)


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the goals that the rows say something about."""
    experiment = rows[0].experiment
    if experiment == 1:
        return _experiment_1(rows)
    if experiment == 2:
        return _experiment_2(rows)
    if experiment == 3:
        return _experiment_3(rows)
    return _experiment_4(rows)


def markdown(rows: Sequence[Row]) -> str:
    """Return the goals as a table; empty if there are none."""
    return goal.markdown(goals(rows))


def _experiment_1(rows: Sequence[Row]) -> list[Goal]:
    found = []
    for adapter, papers in zip(PAPER_1, ("−0.03 points", "49.90% (chance)"), strict=True):
        for method in ("closed-form", "auto"):
            above = _above_teacher(rows, method, adapter, 0)
            if above is not None:
                found.append(
                    Goal(
                        f"zero samples, {adapter}, {method}: error above the teacher's",
                        papers,
                        "≤ 0.2 points",
                        f"{above:+.2f} points",
                        above <= 0.2,
                    )
                )
    return found


def _experiment_2(rows: Sequence[Row]) -> list[Goal]:
    papers = {10: "0.98", 20: "0.76", 50: "0.59", 100: "0.38"}
    found = []
    counts = [count for count in summary.sample_counts(rows) if count > 0]
    for count in counts:
        ratio = summary.ratio(rows, OURS, BASELINE, count)
        if ratio is not None:
            found.append(
                Goal(
                    f"{count} samples: (auto − teacher) / (direct-learn − teacher)",
                    papers.get(count, "–"),
                    "≤ 0.5",
                    f"{ratio:.2f}",
                    ratio <= 0.5,
                )
            )
    hundred = _mean(rows, *BASELINE, 100)
    for count, bar in ((10, "below"), (0, "no worse than")):
        mine = _mean(rows, *OURS, count)
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
    if rows[0].data == "digits":
        mine = _above_teacher(rows, *OURS, 0)
        plain = _above_teacher(rows, "identity", AUTO, 0)
        if mine is not None and plain is not None and plain > 0:
            found.append(
                Goal(
                    "zero samples: (auto − teacher) / (no adapter − teacher)",
                    "–",
                    "≤ 0.35",
                    f"{mine / plain:.2f}",
                    mine / plain <= 0.35,
                )
            )
    return found


def _experiment_3(rows: Sequence[Row]) -> list[Goal]:
    found = []
    kinds = summary.kinds(rows)
    ours = next((kind for kind in kinds if kind[0] == "auto"), None)
    if ours is None:
        return []
    for count in (c for c in summary.sample_counts(rows) if c > 0):
        mine = _mean(rows, *ours, count)
        best = _teacher(rows)
        for other in ("direct-learn", "distill"):
            theirs = _mean(rows, other, "1x1", count)
            if mine is None or theirs is None:
                continue
            room = best - theirs
            found.append(
                Goal(
                    f"{count} samples: auto above {other} (which leaves {room:.1f} to the teacher)",
                    "+10 points",
                    "≥ +10 where there is room",
                    f"{mine - theirs:+.1f} points",
                    None if room < 10 else mine - theirs >= 10,
                )
            )
    mine = _mean(rows, *ours, 100)
    if mine is not None:
        below = _teacher(rows) - mine
        found.append(
            Goal(
                "100 samples: auto below the teacher",
                "7 points",
                "≤ 3 points",
                f"{below:.1f} points",
                below <= 3,
            )
        )
    return found


def _experiment_4(rows: Sequence[Row]) -> list[Goal]:
    papers = {10: -6.18, 20: -9.28, 50: -9.92, 100: -11.34}
    found = []
    for count in (c for c in summary.sample_counts(rows) if c > 0):
        mine, theirs = _mean(rows, *OURS, count), _mean(rows, *BASELINE, count)
        if mine is not None and theirs is not None:
            said = papers.get(count)
            found.append(
                Goal(
                    f"{count} samples: auto against direct-learn",
                    f"{said:.1f} points" if said is not None else "–",
                    "below 0",
                    f"{mine - theirs:+.1f} points",
                    mine < theirs,
                )
            )
    return found


def _mean(rows: Sequence[Row], method: str, adapter: str, samples: int) -> float | None:
    found = summary.interval(summary.chosen(rows, method, adapter, samples), summary.error)
    return None if found is None else found.mean


def _teacher(rows: Sequence[Row]) -> float:
    each = list({(row.category, row.seed): row for row in rows}.values())
    found = summary.interval(each, summary.teacher)
    assert found is not None  # every row has its teacher's
    return found.mean


def _above_teacher(rows: Sequence[Row], method: str, adapter: str, samples: int) -> float | None:
    mine = _mean(rows, method, adapter, samples)
    return None if mine is None else mine - _teacher(rows)
