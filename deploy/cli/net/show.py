"""``rootstock net show``: what the net holds and how well it is joined, as a table or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.net.tables import extractors, net_lines
from rootstock.deploy.cli.options import AsJson, Config, Version
from rootstock.deploy.output import PEOPLE, print_json, print_plain


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
