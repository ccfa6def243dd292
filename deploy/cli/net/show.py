"""``rootstock net show``: what the net holds and how well it is joined, as a table or a picture."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.options import AsJson, Config, Version
from rootstock.deploy.output import PEOPLE, cut, print_json, print_plain

if TYPE_CHECKING:
    from rootstock.common.nets.graph import Edge, NetTree

WIDTH = 80
NOT_JOINED = "–"
NO_ERROR = "joined"
"""In the cell of a join whose error nobody measured."""
_MOST_NAME = 36
_MOST_HEADING = 24
_GAP = "  "


def show(
    config: Config,
    version: Version = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the net to a file instead: NAME.svg or NAME.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show categories × tasks, with the error in each cell and what is not joined."""
    where, opened = open_net(config)
    with opened as net:
        number = number_of(net, version)
        commit = net.commit(number)
        tree = net.tree(number)
    title = f"{where.net}, net version {number}"
    if picture is not None:
        from rootstock.coordinator.pictures.net import draw_net

        draw_net(tree, picture, title=title)
        PEOPLE.print(f"written: {picture}", soft_wrap=True)
    if as_json:
        from rootstock.coordinator.net.diff import described

        joins = [
            {"category": edge.category, "task": edge.task, **described(edge)} for edge in tree.edges
        ]
        print_json(
            {
                "net": where.net,
                "version": number,
                "tree": commit.tree,
                "categories": sorted(tree.category_modules),
                "extractors": extractors(tree),
                "tasks": sorted(tree.task_modules),
                "joins": joins,
            }
        )
    elif picture is None:
        print_plain(f"{title}: error in % on each lab's validation data", "", *net_lines(tree))


def net_lines(tree: NetTree) -> Iterator[str]:
    """Yield the lines of a net's table: the error in percent in each cell.

    Tasks that do not fit into 80 columns follow in a table of their own, below. Longer names are
    cut with an ellipsis.
    """
    categories, tasks = sorted(tree.category_modules), sorted(tree.task_modules)
    cells = {(edge.category, edge.task): _cell(edge) for edge in tree.edges}
    names = [cut(name, _MOST_NAME) for name in categories]
    first = max([len("category"), *map(len, names)])
    for block in _blocks(tasks, WIDTH - first):
        headings = [cut(task, _MOST_HEADING) for task in block]
        widths = [max(len(heading), len(NO_ERROR)) for heading in headings]
        yield _row("category", first, headings, widths)
        yield "─" * (first + sum(len(_GAP) + width for width in widths))
        for category, name in zip(categories, names, strict=True):
            row = [cells.get((category, task), NOT_JOINED) for task in block]
            yield _row(name, first, row, widths)
        yield ""
    yield summary(tree)
    if others := Counter(extractors(tree).values()):
        counts = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
        yield from textwrap.wrap(f"category modules of other architectures: {counts}", WIDTH)


def extractors(tree: NetTree) -> dict[str, str]:
    """Return the architecture of every category module that is not of the net's, by category."""
    refs = sorted(tree.category_modules.items())
    return {
        name: ref.architecture.extractor.name
        for name, ref in refs
        if ref.architecture.extractor is not None
    }


def summary(tree: NetTree) -> str:
    """Count what is in the net and what is not joined."""
    cells = len(tree.category_modules) * len(tree.task_modules)
    missing = cells - len(tree.edges)
    joins = f"{len(tree.edges)} of {cells} joined" + (f" ({NOT_JOINED} not)" if missing else "")
    categories = counted(len(tree.category_modules), "category", "categories")
    return f"{categories}, {counted(len(tree.task_modules), 'task')}, {joins}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return "1 task", "2 tasks"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _cell(edge: Edge) -> str:
    return NO_ERROR if edge.error is None else f"{edge.error:.1f}"


def _row(name: str, first: int, cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (f"{_GAP}{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:<{first}}" + "".join(padded)


def _blocks(tasks: Sequence[str], room: int) -> Iterator[list[str]]:
    """Yield tasks side by side as long as they fit; at least one."""
    block: list[str] = []
    used = 0
    for task in tasks:
        width = len(_GAP) + max(len(cut(task, _MOST_HEADING)), len(NO_ERROR))
        if block and used + width > room:
            yield block
            block, used = [], 0
        block.append(task)
        used += width
    if block:
        yield block
