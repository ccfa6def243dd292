"""Compares two net versions: modules, tasks and joins. Pure; no tensors are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rootstock.common.nets.graph import Edge, ModuleRef, NetTree

K = TypeVar("K", str, tuple[str, str])


@dataclass(frozen=True)
class Changes(Generic[K]):
    """Sorted names: only in the new, only in the old, and in both but not the same."""

    added: tuple[K, ...]
    removed: tuple[K, ...]
    changed: tuple[K, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class Difference:
    """The way from an old tree to a new one.

    From an ancestor to its descendant everything is added, for a merge changes nothing that is in
    the net; the other way round everything is removed. Between two branches modules and joins of
    one name may differ.
    """

    old: NetTree
    new: NetTree
    categories: Changes[str]
    tasks: Changes[str]
    joins: Changes[tuple[str, str]]
    """By (category, task)."""

    def __bool__(self) -> bool:
        return bool(self.categories or self.tasks or self.joins)

    def as_json(self) -> dict[str, Any]:
        """Return lists of what was added, removed and changed, with digests and errors."""
        old, new = self.old, self.new
        return {
            "categories": _modules(
                self.categories, "category", old.category_modules, new.category_modules
            ),
            "tasks": _modules(self.tasks, "task", old.task_modules, new.task_modules),
            "joins": _joins(self.joins, edges(old), edges(new)),
        }


def difference(old: NetTree, new: NetTree) -> Difference:
    """Compare two trees."""
    return Difference(
        old=old,
        new=new,
        categories=_changes(old.category_modules, new.category_modules),
        tasks=_changes(old.task_modules, new.task_modules),
        joins=_changes(edges(old), edges(new)),
    )


def edges(tree: NetTree) -> dict[tuple[str, str], Edge]:
    """Return a tree's joins by (category, task)."""
    return {(edge.category, edge.task): edge for edge in tree.edges}


def _changes(old: Mapping[K, object], new: Mapping[K, object]) -> Changes[K]:
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
    )


def _modules(
    changes: Changes[str], key: str, old: Mapping[str, ModuleRef], new: Mapping[str, ModuleRef]
) -> dict[str, Any]:
    return {
        "added": [{key: name, "module": new[name].blob.digest} for name in changes.added],
        "removed": [{key: name, "module": old[name].blob.digest} for name in changes.removed],
        "changed": [
            {key: name, "before": old[name].blob.digest, "after": new[name].blob.digest}
            for name in changes.changed
        ],
    }


def _joins(
    changes: Changes[tuple[str, str]],
    old: Mapping[tuple[str, str], Edge],
    new: Mapping[tuple[str, str], Edge],
) -> dict[str, Any]:
    def named(join: tuple[str, str], **rest: Any) -> dict[str, Any]:
        return {"category": join[0], "task": join[1], **rest}

    return {
        "added": [named(join, **described(new[join])) for join in changes.added],
        "removed": [named(join, **described(old[join])) for join in changes.removed],
        "changed": [
            named(join, before=described(old[join]), after=described(new[join]))
            for join in changes.changed
        ],
    }


def described(edge: Edge) -> dict[str, Any]:
    """Return a join's error in percent, the digest of its adapter, and its calibration."""
    return {
        "error": edge.error,
        "adapter": edge.adapter.blob.digest if edge.adapter else None,
        "calibration": edge.calibration.model_dump(),
    }
