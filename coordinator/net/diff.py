"""Compares two net versions: modules, tasks and joins. Pure; no tensors are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rootstock.common.nets.graph import Edge, ModuleRef, NetTree

K = TypeVar("K", str, tuple[str, str])
V = TypeVar("V")


@dataclass(frozen=True)
class Changes(Generic[K, V]):
    """What only the new one has, what only the old one has, and both where they differ; sorted."""

    added: Mapping[K, V]
    removed: Mapping[K, V]
    changed: Mapping[K, tuple[V, V]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def as_json(
        self,
        key: Callable[[K], dict[str, Any]],
        whole: Callable[[V], dict[str, Any]],
        state: Callable[[V], Any],
    ) -> dict[str, Any]:
        """Return lists of added, removed and changed, by how a key, one and a changed one look."""
        return {
            "added": [key(name) | whole(value) for name, value in self.added.items()],
            "removed": [key(name) | whole(value) for name, value in self.removed.items()],
            "changed": [
                key(name) | {"before": state(old), "after": state(new)}
                for name, (old, new) in self.changed.items()
            ],
        }


@dataclass(frozen=True)
class Difference:
    """The way from an old tree to a new one.

    From an ancestor to its descendant everything is added, for a merge changes nothing that is in
    the net; the other way round everything is removed. Between two branches modules and joins of
    one name may differ.
    """

    categories: Changes[str, ModuleRef]
    tasks: Changes[str, ModuleRef]
    joins: Changes[tuple[str, str], Edge]
    """By (category, task)."""

    def __bool__(self) -> bool:
        return bool(self.categories or self.tasks or self.joins)

    def as_json(self) -> dict[str, Any]:
        """Return lists of what was added, removed and changed, with digests and errors."""
        return {
            "categories": self.categories.as_json(
                lambda name: {"category": name}, _module, _digest
            ),
            "tasks": self.tasks.as_json(lambda name: {"task": name}, _module, _digest),
            "joins": self.joins.as_json(
                lambda join: {"category": join[0], "task": join[1]}, described, described
            ),
        }


def difference(old: NetTree, new: NetTree) -> Difference:
    """Compare two trees."""
    return Difference(
        categories=_changes(old.category_modules, new.category_modules),
        tasks=_changes(old.task_modules, new.task_modules),
        joins=_changes(_joins(old), _joins(new)),
    )


def described(edge: Edge) -> dict[str, Any]:
    """Return a join's error in percent, the digest of its adapter, and its calibration."""
    return {
        "error": edge.error,
        "adapter": edge.adapter.blob.digest if edge.adapter else None,
        "calibration": edge.calibration.model_dump(),
    }


def _changes(old: Mapping[K, V], new: Mapping[K, V]) -> Changes[K, V]:
    both = sorted(old.keys() & new.keys())
    return Changes(
        added={name: new[name] for name in sorted(new.keys() - old.keys())},
        removed={name: old[name] for name in sorted(old.keys() - new.keys())},
        changed={name: (old[name], new[name]) for name in both if old[name] != new[name]},
    )


def _joins(tree: NetTree) -> dict[tuple[str, str], Edge]:
    return {(edge.category, edge.task): edge for edge in tree.edges}


def _digest(module: ModuleRef) -> str:
    return module.blob.digest


def _module(module: ModuleRef) -> dict[str, Any]:
    return {"module": module.blob.digest}
