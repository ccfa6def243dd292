"""``rootstock net``: see the transplant net, trust its history, take a composition away.

Read straight from the coordinator's state folder; no server need run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import NotFoundError
from deploy.cli import net_growth
from deploy.cli.extras import needs_coordinator
from deploy.cli.output import RESULT, print_json

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from coordinator.view import NetView

app = typer.Typer(help="See, verify and export net versions.", no_args_is_help=True)

for command in (net_growth.plan, net_growth.grow, net_growth.rollback):
    app.command()(command)

Config = Annotated[Path, typer.Option("--config", "-c", help="coordinator.toml")]
Version = Annotated[int | None, typer.Option("--version", "-v", help="Default: the newest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

VERIFY_FAILED = 1
"""Exit code of `net verify` when it found problems: the answer is no, not an error."""


def _open(config: Path, command: str) -> tuple[CoordinatorConfig, NetView]:
    with needs_coordinator(f"net {command}"):
        from coordinator.config import CoordinatorConfig
        from coordinator.view import NetView
    from common.config import load

    settings = load(config, CoordinatorConfig)
    return settings, NetView.open(settings)


def _number(view: NetView, wanted: int | None) -> int:
    number = wanted if wanted is not None else view.head
    if number is None:
        raise NotFoundError("the net is not founded yet: no teacher net has been merged")
    return number


@app.command()
def show(config: Config, version: Version = None, as_json: AsJson = False) -> None:
    """Show categories × tasks, with the error in each cell and what is not joined."""
    _, opened = _open(config, "show")
    with opened as view:
        number = _number(view, version)
        digest = view.commit(number).tree
        tree = view.tree(number)
    cells = {(edge.category, edge.task): edge for edge in tree.edges}
    if as_json:
        joins = [
            {
                "category": edge.category,
                "task": edge.task,
                "error": edge.error,
                "adapter": edge.adapter.blob.digest if edge.adapter else None,
                "calibration": edge.calibration.model_dump(),
            }
            for edge in tree.edges
        ]
        print_json({"version": number, "tree": digest, "joins": joins})
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=f"Net version {number}: error in %", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("category")
    for task in sorted(tree.task_modules):
        table.add_column(task, justify="right")
    for category in sorted(tree.category_modules):
        row = [cells.get((category, task)) for task in sorted(tree.task_modules)]
        table.add_row(
            category,
            *(
                "not joined"
                if edge is None
                else "joined"
                if edge.error is None
                else f"{edge.error:.1f}"
                for edge in row
            ),
        )
    RESULT.print(table)


@app.command()
def log(config: Config, as_json: AsJson = False) -> None:
    """Show net versions, newest first, with the merge that made each."""
    _, opened = _open(config, "log")
    with opened as view:
        commits = [(commit.content_digest(), commit) for commit in view.commits()]
    if as_json:
        versions = [
            {"digest": digest, **commit.model_dump(mode="json")} for digest, commit in commits
        ]
        print_json({"versions": versions})
        return
    for digest, commit in commits:
        merge = commit.merge
        RESULT.print(f"[yellow]version {commit.number}[/] {digest[:12]}  {commit.created_at}")
        RESULT.print(
            f"    {merge.get('operation')} {merge.get('category')} → {merge.get('task')} "
            f"from {merge.get('site')}"
        )


@app.command()
def verify(
    config: Config,
    version: Version = None,
    probe: Annotated[
        bool, typer.Option(help="Also compose every join and compare what it answers.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check that a version is whole, signed for, and answers as its joins always did."""
    settings, opened = _open(config, "verify")
    from common.identity.keys import load_or_create
    from coordinator.places import Places
    from coordinator.verification import verify_version

    with opened as view:
        number = _number(view, version)
        key = load_or_create(Places(settings).key).public_key
        problems = verify_version(view, number, key, probe=probe)
    if as_json:
        rows = [problem.model_dump() for problem in problems]
        print_json({"ok": not problems, "version": number, "problems": rows})
    elif problems:
        for problem in problems:
            RESULT.print(f"{problem.where}: {problem.what} ({problem.rule})", soft_wrap=True)
    else:
        RESULT.print(f"version {number}: every blob is there, matches its digest and is signed for")
        if probe:
            RESULT.print("every join answers, bit by bit, as in the version that added it")
    if problems:
        raise typer.Exit(VERIFY_FAILED)


@app.command()
def export(
    config: Config,
    category: Annotated[str, typer.Option(help="Category module to compose.")],
    task: Annotated[str, typer.Option(help="Task module to compose.")],
    out: Annotated[Path, typer.Option(help="File to write: NAME.safetensors")],
    version: Version = None,
) -> None:
    """Write a composed net, with a card that says how to load it, for an application."""
    _, opened = _open(config, "export")
    from coordinator.export.safetensors_export import export_composed

    with opened as view:
        card = export_composed(view.tree(_number(view, version)), view.store, category, task, out)
    print_json(card)
