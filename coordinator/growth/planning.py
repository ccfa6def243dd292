"""What the net will do about teachers that wait: operations in waves, before any runs. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.growth.operations import Operation, OperationKind, Refusal, decide
from rootstock.coordinator.growth.version import grown


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """An operation to come."""

    wave: int
    """Operations of one wave need nothing of one another: they run side by side. From 1."""
    operation: OperationKind
    category: str
    task: str
    site: str
    submission: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unplanned:
    """A teacher that the net has no room for, as things stand."""

    submission: str
    site: str
    category: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class GrowthPlan:
    """All operations to come, by wave, and what is left over."""

    operations: tuple[Planned, ...]
    refusals: tuple[Unplanned, ...]
    unjoined: tuple[tuple[str, str], ...]
    """(category, task) that the net would have without joining them."""


def plan_growth(
    tree: NetTree | None,
    opened: Iterable[tuple[str, TeacherManifest, Operation]],
    waiting: Iterable[tuple[str, TeacherManifest]],
    plan: Plan,
    owner: Callable[[str], str | None] = lambda _: None,
) -> GrowthPlan:
    """Plan what is queued and what waits, oldest first, as if everything were accepted.

    `opened` are the operations of open merges, `waiting` the submissions without merges, both with
    the submission's id and manifest. `owner` returns the lab that a category of the net comes from.
    """
    grower = _Grower(tree, plan, owner)
    for submission, manifest, operation in opened:
        grower.add(submission, manifest, operation)
    for submission, manifest in waiting:
        grower.decide(submission, manifest)
    operations = sorted(grower.operations, key=lambda each: each.wave)
    return GrowthPlan(tuple(operations), tuple(grower.refusals), grower.unjoined())


class _Grower:
    """Grows a tree in thought, and remembers when each module would be there."""

    def __init__(
        self, tree: NetTree | None, plan: Plan, owner: Callable[[str], str | None]
    ) -> None:
        self.operations: list[Planned] = []
        self.refusals: list[Unplanned] = []
        self._tree, self._plan, self._owner_in_net = tree, plan, owner
        self._owners: dict[str, str] = {}
        self._tasks = dict.fromkeys(tree.task_modules if tree is not None else (), 0)
        self._categories: dict[str, int] = {}

    def decide(self, submission: str, manifest: TeacherManifest) -> None:
        decision = decide(self._tree, manifest, self._plan, owner=self._owner)
        if isinstance(decision, Refusal):
            self.refusals.append(
                Unplanned(submission, manifest.site, manifest.category, decision.reason)
            )
            return
        for operation in decision:
            self.add(submission, manifest, operation)

    def add(self, submission: str, manifest: TeacherManifest, operation: Operation) -> None:
        wave, kind = self._wave(operation), operation.kind
        category, task = operation.category, operation.task
        self.operations.append(Planned(wave, kind, category, task, manifest.site, submission))
        self._owners[category] = manifest.site
        self._categories.setdefault(category, wave)
        if kind.adds_task:
            self._tasks.setdefault(task, wave)
        digest = manifest.content_digest()
        self._tree = grown(self._tree, operation, manifest, self._plan, manifest_digest=digest)

    def unjoined(self) -> tuple[tuple[str, str], ...]:
        if self._tree is None:
            return ()
        joined = {(edge.category, edge.task) for edge in self._tree.edges}
        return tuple(
            (category, task)
            for category in sorted(self._tree.category_modules)
            for task in sorted(self._tree.task_modules)
            if (category, task) not in joined
        )

    def _wave(self, operation: Operation) -> int:
        if not operation.kind.adds_task:
            return self._tasks.get(operation.task, 0) + 1
        if operation.kind is OperationKind.NEW_TASK:
            return self._categories.get(operation.category, 0) + 1
        return 1

    def _owner(self, category: str) -> str | None:
        return self._owners.get(category) or self._owner_in_net(category)
