"""What a lab's recipe learned besides weights, as a picture: where to transfer, or which paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rootstock.coordinator.history.record import MergeRecord, Tailored
from rootstock.coordinator.pictures.canvas import INK, new_figure, save
from rootstock.coordinator.pictures.pair_weights import MOST, ends, heat_map
from rootstock.coordinator.pictures.tailored import draw_tailored

_LAYER = r"[A-Za-z0-9_./-]{1,100}"
_LAMBDA = re.compile(rf"lambda/([a-z0-9][a-z0-9._-]{{0,62}})/({_LAYER})->({_LAYER})")
"""As recipe `l2t` names λ of a pair: source, its layer m, the teacher net's layer n.

Names as PyTorch and site.toml have them. A lab could write anything there, and a picture takes
less than that: "$" begins a formula, and fonts lack most of Unicode.
"""
_MOST_SOURCES = 6

Pairs = dict[tuple[str, str], float]


def lambdas(record: MergeRecord) -> dict[str, Pairs]:
    """Return λ by source and by pair of layers; what the recipe cannot give is left out.

    A lab's numbers are not to be trusted: λ is 0 to 6, names are as `_LAMBDA` has them. What is
    left out here is among the teacher's numbers all the same.
    """
    found: dict[str, Pairs] = {}
    for key, value in record.teacher_numbers.items():
        match = _LAMBDA.fullmatch(key)
        if match is not None and 0 <= value <= MOST:
            found.setdefault(match[1], {})[match[2], match[3]] = value
    return dict(list(found.items())[:_MOST_SOURCES])


def has_recipe(record: MergeRecord) -> bool:
    """Say whether there is something to draw."""
    return record.tailored is not None or bool(lambdas(record))


def draw_recipe(record: MergeRecord, path: Path) -> Path:
    """Draw the tailored net, or λ of every source.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
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
    for axes, (source, pairs) in zip(
        figure.subplots(1, len(sources), squeeze=False)[0], sources.items(), strict=True
    ):
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
