"""Draws a merge's charts: errors, feature spaces, and what the lab's recipe learned."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.history.content import state_name
from rootstock.coordinator.history.record import MergeRecord, Tailored
from rootstock.coordinator.jobs.feature_space import FeatureSpaces
from rootstock.coordinator.pictures.canvas import INK, NEW, QUIET, new_figure, save, shortened
from rootstock.coordinator.pictures.recipes import MOST, draw_tailored, ends, heat_map

_EARLIER, _EARLIER_NAME = "#d5dade", "#666c73"
_WIDTH = 7.2
"""Inches."""
_ROW = 0.27
"""Inches a bar."""
_NAME = 28
"""Characters of a row's name."""

_LAYER = r"[A-Za-z0-9_./-]{1,100}"
_LAMBDA = re.compile(rf"lambda/([a-z0-9][a-z0-9._-]{{0,62}})/({_LAYER})->({_LAYER})")
"""As recipe `l2t` names λ of a pair: source, its layer m, the teacher net's layer n.

Names as PyTorch and site.toml have them. A lab could write anything there, and a picture takes
less than that: "$" begins a formula, and fonts lack most of Unicode.
"""
_MOST_SOURCES = 6

Pairs = dict[tuple[str, str], float]


class _Bar(NamedTuple):
    name: str
    error: float | None
    teacher: float | None
    colour: str
    ink: str = INK


def draw_errors(record: MergeRecord, path: Path) -> Path:
    """Draw a bar for each candidate of the new join, above one for each join of the net before.

    What was not measured has no bar. Red lines are the teachers' errors.
    """
    new = _new_bars(record)
    bars = [*new, *_earlier_bars(record)]
    # Half a row between what is new and what was there.
    ys = [-(row + (0.7 if row >= len(new) else 0.0)) for row in range(len(bars))]
    figure = new_figure(_WIDTH, 1.5 + _ROW * (len(bars) + 0.7))
    axes = figure.add_subplot()
    errors = {y: bar.error for y, bar in zip(ys, bars, strict=True) if bar.error is not None}
    colours = [bar.colour for bar in bars if bar.error is not None]
    drawn = axes.barh(list(errors), list(errors.values()), 0.72, color=colours)
    axes.bar_label(drawn, fmt="%.1f", padding=4, size=7.5, color=INK)
    teachers = {y: bar.teacher for y, bar in zip(ys, bars, strict=True) if bar.teacher is not None}
    if teachers:
        low, high = [y - 0.48 for y in teachers], [y + 0.48 for y in teachers]
        label = "error of the teacher"
        axes.vlines(list(teachers.values()), low, high, color=NEW, linewidth=1.6, label=label)
        axes.legend(loc="lower right", frameon=False, fontsize=7.5)
    axes.set_yticks(ys, [bar.name for bar in bars])
    for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set(color=bar.ink)
    axes.set_ylim(ys[-1] - 0.6, 0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.set_xlabel("error on the owning lab's private validation data, %", size=8)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"{record.join}: {state_name(record).lower()}", size=10, loc="left")
    figure.tight_layout()
    return save(figure, path)


def _new_bars(record: MergeRecord) -> list[_Bar]:
    measured = record.measured
    teacher, category = measured.teacher_error, shortened(record.category, _NAME - 14)
    return [
        _Bar(f"{category}, {candidate.label}", error, teacher, candidate.colour)
        for candidate, error in measured.shown_errors.items()
    ] or [_Bar(f"{category}, as trained", teacher, teacher, Candidate.REFINED.colour)]


def _earlier_bars(record: MergeRecord) -> Iterable[_Bar]:
    one_task = len({join.task for join in record.earlier} | {record.task}) == 1
    for join in record.earlier:
        name = join.category if one_task else f"{join.category} → {join.task}"
        name = f"{shortened(name, _NAME)}, unchanged"
        yield _Bar(name, join.error, join.teacher_error, _EARLIER, _EARLIER_NAME)


def has_features(record: MergeRecord) -> bool:
    """Say whether there is a figure of a merge's join: it is a transplanted classification."""
    return record.features is not None or bool(record.no_features)


def draw_features(record: MergeRecord, path: Path) -> Path:
    """Draw where images lie on two principal components of g_S's last hidden features.

    After the paper's figure 5: without and with the adapter. Where features could not be computed,
    the picture says why.
    """
    title = f"{record.join}: last hidden features of the net's task module"
    if record.features is not None:
        return _draw_spaces(record.features, title, path)
    figure = new_figure(_WIDTH, 1.4)
    text = f"{title}\ncannot be drawn: {record.no_features}"
    figure.text(0.02, 0.5, text, size=8, color=INK, ha="left", va="center", wrap=True)
    return save(figure, path)


def _draw_spaces(spaces: FeatureSpaces, title: str, path: Path) -> Path:
    shown = [("with what joins them", spaces.joined)]
    if spaces.bare is not None:
        shown.insert(0, ("without the adapter", spaces.bare))
    figure = new_figure(_WIDTH, 3.9)
    figure.suptitle(title, size=10, x=0.02, ha="left", color=INK)
    panels = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True)[0]
    limit = max(1e-6, *map(abs, spaces.teacher_answers))
    for axes, (label, space) in zip(panels, shown, strict=True):
        dots = axes.scatter(
            *zip(*space.positions, strict=True),
            c=spaces.teacher_answers,
            cmap="coolwarm",
            vmin=-limit,
            vmax=limit,
            s=13,
            linewidths=0.25,
            edgecolors=INK,
        )
        axes.set_title(f"{label}   ρ = {space.agreement:.2f}", size=9, color=INK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=QUIET, linewidth=0.6)
    bar = figure.colorbar(dots, ax=list(panels), fraction=0.04, pad=0.02)
    bar.set_label("the teacher's answer y_T", size=8)
    bar.ax.tick_params(labelsize=7)
    note = (
        f"{len(spaces.teacher_answers)} synthetic images (dead leaves), nobody's; first two "
        "principal components.\nρ: rank correlation of the net's answers with the teacher's; 1 "
        "orders all images as the teacher does."
    )
    figure.text(0.02, 0.02, note, size=7, color=QUIET, ha="left", va="bottom")
    figure.subplots_adjust(left=0.04, right=0.86, top=0.84, bottom=0.16, wspace=0.06)
    return save(figure, path)


def lambdas(record: MergeRecord) -> dict[str, Pairs]:
    """Return λ by source and by pair of layers; what the recipe cannot give is left out.

    A lab's numbers are not to be trusted: λ is 0 to 6, names are as `_LAMBDA` has them. What is
    left out here is among the teacher's numbers all the same.
    """
    sources: dict[str, Pairs] = {}
    for key, value in record.teacher_numbers.items():
        match = _LAMBDA.fullmatch(key)
        if match is not None and 0 <= value <= MOST:
            sources.setdefault(match[1], {})[match[2], match[3]] = value
    return dict(list(sources.items())[:_MOST_SOURCES])


def has_recipe(record: MergeRecord) -> bool:
    """Say whether the recipe learned something besides weights that can be drawn."""
    return record.tailored is not None or bool(lambdas(record))


def draw_recipe(record: MergeRecord, path: Path) -> Path:
    """Draw the tailored net, or λ of every source."""
    net = record.tailored
    if net is not None:
        figure = new_figure(max(4.8, 0.75 * len(net.blocks) + 1), 2.0)
        draw_tailored(figure.add_subplot(), net.blocks, net.paths, _title(record, net))
        figure.subplots_adjust(left=0.03, right=0.97, top=0.88, bottom=0.03)
        return save(figure, path)
    sources = lambdas(record)
    sides = {source: tuple(map(lowest_first, ends(pairs))) for source, pairs in sources.items()}
    rows = max(len(layers) for layers, _ in sides.values())
    columns = max(len(targets) for _, targets in sides.values())
    wide = 1.6 + max(2.4, 0.62 * columns)
    figure = new_figure(wide * len(sources), 1.3 + max(1.6, 0.36 * rows))
    figure.set_layout_engine("constrained")
    figure.suptitle(f"{record.category}: where it learned from its sources", size=10, color=INK)
    brightest = max(value for pairs in sources.values() for value in pairs.values())
    panels = figure.subplots(1, len(sources), squeeze=False)[0]
    for axes, (source, pairs) in zip(panels, sources.items(), strict=True):
        heat_map(axes, pairs, *sides[source], title=f"λ, {source}", brightest=brightest)
    return save(figure, path)


def lowest_first(layers: Iterable[str]) -> list[str]:
    """Sort layers by their numbers: a manifest's keys come in the order of their letters.

    Those of task modules, "task/layer", stand above all of the category module's.
    """
    return sorted(
        layers,
        key=lambda layer: (
            "/" in layer,
            [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", layer)],
        ),
    )


def _title(record: MergeRecord, net: Tailored) -> str:
    """Say what was left out: blocks, and what that saves if the lab says something that can be."""
    removed = len(net.blocks) - sum(skip == 0 for _, skip, _ in net.paths)
    title = f"{record.category}: {removed} of {len(net.blocks)} universal blocks left out"
    for key, what in (("params_removed", "parameters"), ("flops_removed", "FLOPs")):
        share = record.teacher_numbers.get(f"nettailor/{key}")
        if share is not None and -1000 <= share <= 100:
            title += f", {share:.0f}% of {what}"
    return title
