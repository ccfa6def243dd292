"""``rootstock net log`` and ``diff``: how the net grew, read as git's history is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.deploy.cli.net.options import AsJson, Config, Version, number_of, open_net
from rootstock.deploy.output import RESULT, print_json

if TYPE_CHECKING:
    from rootstock.common.nets.graph import Edge, VersionCommit
    from rootstock.coordinator.growth.numbers import MergeNumbers
    from rootstock.coordinator.net.diff import Difference

_SHORT = 12
"""Digits of a digest that people read."""


def log(
    config: Config,
    version: Version = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Show so many versions at most.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a net version and its ancestors, newest first, with the merge that made each."""
    _, opened = open_net(config, "log")
    with opened as view:
        commits = view.history(number_of(view, version), limit)
    if as_json:
        versions = [
            {"digest": commit.content_digest(), **commit.model_dump(mode="json")}
            for commit in commits
        ]
        print_json({"versions": versions})
        return
    for commit in commits:
        for line in _log_lines(commit):
            RESULT.print(line, soft_wrap=True)


def diff(
    config: Config,
    old: Annotated[int, typer.Argument(help="Number of a net version.")],
    new: Annotated[int | None, typer.Argument(help="Of another; default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a net version has that another has not: modules, joins, errors."""
    _, opened = open_net(config, "diff")
    from rootstock.coordinator.net.diff import difference

    with opened as view:
        numbers = (old, number_of(view, new))
        found = difference(view.tree(numbers[0]), view.tree(numbers[1]))
    if as_json:
        print_json({"from": numbers[0], "to": numbers[1], **found.as_json()})
        return
    for line in _diff_lines(found, *numbers):
        RESULT.print(line, soft_wrap=True)


def _log_lines(commit: VersionCommit) -> Iterator[str]:
    from rootstock.coordinator.growth.candidates import Candidate
    from rootstock.coordinator.growth.numbers import MergeNumbers

    merge = commit.merge
    digest = commit.content_digest()[:_SHORT]
    yield f"[yellow]version {commit.number}[/]  {digest}  {commit.created_at[:19]}"
    joined = f"{merge.get('category')} → {merge.get('task')} from {merge.get('site')}"
    word = str(merge.get("candidate") or "")
    by = f", by {Candidate(word).phrase if word in set(Candidate) else word}" if word else ""
    yield f"    {merge.get('operation')}: {joined}{by}"
    numbers = _numbers(MergeNumbers.from_flat(merge))
    if numbers:
        yield f"    {numbers}"


def _numbers(numbers: MergeNumbers) -> str:
    """Return a merge's errors and its seconds of work in one line."""
    errors = {"teacher": numbers.teacher_error} if numbers.teacher_error is not None else {}
    errors |= {each.label: error for each, error in numbers.shown_errors.items()}
    line = "error in %: " + "  ".join(f"{label} {error:.1f}" for label, error in errors.items())
    spent = sum(numbers.seconds.values())
    return (line if errors else "") + (f"  {spent:.0f} s" if numbers.seconds else "")


def _diff_lines(found: Difference, old: int, new: int) -> Iterator[str]:
    yield f"[bold]net version {old} → {new}[/]"
    if not found:
        yield "no difference"
        return
    yield from _module_lines(found)
    yield from _join_lines(found)
    changes = (found.categories, found.tasks, found.joins)
    counts = {
        what: sum(len(getattr(each, what)) for each in changes)
        for what in ("added", "removed", "changed")
    }
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _module_lines(found: Difference) -> Iterator[str]:
    for kind, changes, old, new in (
        ("category", found.categories, found.old.category_modules, found.new.category_modules),
        ("task", found.tasks, found.old.task_modules, found.new.task_modules),
    ):
        for name in changes.added:
            yield f"[green]+ {kind} module {name}[/]  {new[name].blob.digest[:_SHORT]}"
        for name in changes.removed:
            yield f"[red]- {kind} module {name}[/]  {old[name].blob.digest[:_SHORT]}"
        for name in changes.changed:
            digests = (side[name].blob.digest[:_SHORT] for side in (old, new))
            yield f"[yellow]~ {kind} module {name}[/]  {' → '.join(digests)}"


def _join_lines(found: Difference) -> Iterator[str]:
    from rootstock.coordinator.net.diff import edges

    old, new = edges(found.old), edges(found.new)
    for join in found.joins.added:
        yield f"[green]+ join {join[0]} → {join[1]}[/]  {_told(new[join])}"
    for join in found.joins.removed:
        yield f"[red]- join {join[0]} → {join[1]}[/]  {_told(old[join])}"
    for join in found.joins.changed:
        yield f"[yellow]~ join {join[0]} → {join[1]}[/]  {_change(old[join], new[join])}"


def _change(old: Edge, new: Edge) -> str:
    parts = [_error(old) if old.error == new.error else f"{_error(old)} → {_error(new)}"]
    if old.adapter != new.adapter:
        parts.append(f"{_adapter(old)} → {_adapter(new)}")
    if old.calibration != new.calibration:
        parts.append("another calibration")
    return ", ".join(parts)


def _told(edge: Edge) -> str:
    return f"{_error(edge)}, {_adapter(edge)}"


def _error(edge: Edge) -> str:
    return "error not measured" if edge.error is None else f"error {edge.error:.1f} %"


def _adapter(edge: Edge) -> str:
    return "no adapter" if edge.adapter is None else f"adapter {edge.adapter.blob.digest[:_SHORT]}"
