"""What a lab's recipe learned besides weights, as a picture: where to transfer, or which paths."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.history.record import MergeRecord
from coordinator.pictures.canvas import INK, new_figure, save
from coordinator.pictures.pair_weights import MOST, heat_map
from coordinator.pictures.tailored import draw_tailored

_LAMBDA = re.compile(r"lambda/([^/]+)/(.+)->(.+)")
"""As recipe `l2t` names λ of a pair: source, its layer m, the teacher net's layer n."""
_MOST_SOURCES = 6

Pairs = dict[tuple[str, str], float]


def lambdas(record: MergeRecord) -> dict[str, Pairs]:
    """Return λ by source and by pair of layers; what no meta-network can give is left out.

    A lab's numbers are not to be trusted: λ is 0 to 6.
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
        removed = len(net.blocks) - sum(skip == 0 for _, skip, _ in net.paths)
        title = f"{record.category}: {removed} of {len(net.blocks)} universal blocks left out"
        draw_tailored(figure.add_subplot(), net.blocks, net.paths, title)
        figure.subplots_adjust(left=0.03, right=0.97, top=0.88, bottom=0.03)
        return save(figure, path)
    sources = lambdas(record)
    rows = max(len({layer for layer, _ in pairs}) for pairs in sources.values())
    columns = max(len({target for _, target in pairs}) for pairs in sources.values())
    wide = 1.6 + max(2.4, 0.62 * columns)
    figure = new_figure(wide * len(sources), 1.3 + max(1.6, 0.36 * rows))
    figure.set_layout_engine("constrained")
    figure.suptitle(f"{record.category}: where it learned from its sources", size=10, color=INK)
    brightest = max(value for pairs in sources.values() for value in pairs.values())
    for axes, (source, pairs) in zip(
        figure.subplots(1, len(sources), squeeze=False)[0], sources.items(), strict=True
    ):
        heat_map(axes, pairs, f"λ, {source}", brightest)
    return save(figure, path)
