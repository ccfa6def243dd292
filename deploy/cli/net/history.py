"""``rootstock net log`` and ``diff``: how the net grew, read as git's history is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from rootstock.common.times import readable
from rootstock.deploy.cli.access import number_of, open_net
from rootstock.deploy.cli.options import AsJson, Config, Version
from rootstock.deploy.output import print_result

if TYPE_CHECKING:
    from rootstock.common.nets.graph import Edge, ModuleRef, VersionCommit
    from rootstock.coordinator.growth.numbers import MergeNumbers
    from rootstock.coordinator.net.diff import Changes, Difference, K, V

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
    _, opened = open_net(config)
    with opened as net:
        commits = net.history(number_of(net, version), limit)
    versions = [
        {"digest": commit.content_digest(), **commit.model_dump(mode="json")} for commit in commits
    ]
    lines = (line for commit in commits for line in _log_lines(commit))
    print_result({"versions": versions}, *map(Text.from_markup, lines), as_json=as_json)


def diff(
    config: Config,
    old: Annotated[int, typer.Argument(help="Number of a net version.")],
    new: Annotated[int | None, typer.Argument(help="Of another; default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a net version has that another has not: modules, joins, errors."""
    from rootstock.coordinator.net.diff import difference

    _, opened = open_net(config)
    with opened as net:
        new = number_of(net, new)
        changes = difference(net.tree(old), net.tree(new))
    print_result(
        {"from": old, "to": new, **changes.as_json()},
        *map(Text.from_markup, _diff_lines(changes, old, new)),
        as_json=as_json,
    )


def _log_lines(commit: VersionCommit) -> Iterator[str]:
    from rootstock.coordinator.growth.candidates import Candidate
    from rootstock.coordinator.growth.numbers import MergeNumbers

    merge = commit.merge
    digest = commit.content_digest()[:_SHORT]
    yield f"[yellow]version {commit.number}[/]  {digest}  {readable(commit.created_at)}"
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
    seconds = sum(numbers.seconds.values())
    return (line if errors else "") + (f"  {seconds:.0f} s" if numbers.seconds else "")


def _diff_lines(delta: Difference, old: int, new: int) -> Iterator[str]:
    yield f"[bold]net version {old} → {new}[/]"
    if not delta:
        yield "no difference"
        return
    yield from _lines(delta.categories, "category module {}".format, _digest, _digests)
    yield from _lines(delta.tasks, "task module {}".format, _digest, _digests)
    yield from _lines(delta.joins, lambda join: f"join {join[0]} → {join[1]}", _state, _change)
    counts = {
        what: sum(len(getattr(each, what)) for each in (delta.categories, delta.tasks, delta.joins))
        for what in ("added", "removed", "changed")
    }
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _lines(
    changes: Changes[K, V],
    name: Callable[[K], str],
    state: Callable[[V], str],
    change: Callable[[V, V], str],
) -> Iterator[str]:
    for key, value in changes.added.items():
        yield f"[green]+ {name(key)}[/]  {state(value)}"
    for key, value in changes.removed.items():
        yield f"[red]- {name(key)}[/]  {state(value)}"
    for key, (old, new) in changes.changed.items():
        yield f"[yellow]~ {name(key)}[/]  {change(old, new)}"


def _digest(module: ModuleRef) -> str:
    return module.blob.digest[:_SHORT]


def _digests(old: ModuleRef, new: ModuleRef) -> str:
    return f"{_digest(old)} → {_digest(new)}"


def _change(old: Edge, new: Edge) -> str:
    parts = [_error(old) if old.error == new.error else f"{_error(old)} → {_error(new)}"]
    if old.adapter != new.adapter:
        parts.append(f"{_adapter(old)} → {_adapter(new)}")
    if old.calibration != new.calibration:
        parts.append("another calibration")
    return ", ".join(parts)


def _state(edge: Edge) -> str:
    return f"{_error(edge)}, {_adapter(edge)}"


def _error(edge: Edge) -> str:
    return "error not measured" if edge.error is None else f"error {edge.error:.1f} %"


def _adapter(edge: Edge) -> str:
    return "no adapter" if edge.adapter is None else f"adapter {edge.adapter.blob.digest[:_SHORT]}"
