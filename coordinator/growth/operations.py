"""Which operations a submission calls for (METHODS.md, "Growing"; paper, figure 1). Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import Protocol

from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan


class OperationKind(StrEnum):
    """What an operation does; the values are stored in the database and in signed commits."""

    FOUND = "found"
    """The first teacher net becomes the transplant net: f and g joined with no adapter."""
    NEW_CATEGORY = "new-category"
    """A category module is joined to a task module of the net, by back-distillation."""
    NEW_TASK = "new-task"
    """A task module comes along with its category module, joined to it alone ("way 2").

    There is nothing to learn: the teacher net holds both. It follows the operation that adds the
    category module.
    """
    LEARN_TASK = "learn-task"
    """A task module that the operator learned on the net's category modules ("way 1", or
    fine-tuning). It is joined to one category; `CONNECT` joins it to the others that it was
    learned on."""
    CONNECT = "connect"
    """A category module and a task module of the net are joined, on samples."""

    @property
    def is_direct(self) -> bool:
        """Whether nothing is distilled or evaluated: it was trained together, or learned before."""
        return self is not OperationKind.NEW_CATEGORY

    @property
    def adds_task(self) -> bool:
        """Whether the net gets a new task module, rather than a join to one that it has."""
        return self not in (OperationKind.NEW_CATEGORY, OperationKind.CONNECT)


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One step of growth: it joins a category to a task."""

    kind: OperationKind
    category: str
    task: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why the net has no room for a submission, with the remedy."""

    reason: str


class Offer(Protocol):
    """A teacher net, shipped or only meant to be."""

    @property
    def site(self) -> str:
        """The lab's name."""

    @property
    def category(self) -> str:
        """The category's name."""

    @property
    def task_modules(self) -> Collection[str]:
        """Names of its tasks."""

    @property
    def new_version(self) -> bool:
        """Whether it may come in beside an earlier one of the same lab."""


@dataclasses.dataclass(frozen=True, slots=True)
class Intent:
    """A teacher net that a lab means to train."""

    site: str
    category: str
    task_modules: tuple[str, ...]
    new_version: bool


def decide(
    tree: NetTree | None,
    offer: Offer,
    plan: Plan,
    underway: Collection[Operation] = (),
    owner: Callable[[str], str | None] = lambda _: None,
) -> list[Operation] | Refusal:
    """Say which operations a teacher net calls for, in the plan's order.

    FOUND (then NEW_TASK for each further task module) when there is no net yet; else NEW_CATEGORY
    for each task that the net knows or is about to know, then NEW_TASK for the others. A refusal
    when the category is in the net or on its way, a task is not in the plan, or the teacher shares
    no task with the net: there is nothing to transplant it through.

    `underway` is what the open merges do. `owner` returns the lab that a category of the net, or
    of an open merge, comes from.
    """
    if unknown := sorted(task for task in offer.task_modules if plan.task(task) is None):
        return Refusal(
            f"growth: task '{unknown[0]}' is not one of the plan's: "
            f"{_list(task.name for task in plan.tasks)}; leave its task module out, or have the "
            "coordinator's operator add the task"
        )
    category = _category(tree, offer, underway, owner)
    if isinstance(category, Refusal):
        return category
    tasks = [task.name for task in plan.tasks if task.name in offer.task_modules]
    if tree is None:
        first, *others = tasks
        return [
            Operation(OperationKind.FOUND, category, first),
            *(Operation(OperationKind.NEW_TASK, category, task) for task in others),
        ]
    coming = {operation.task for operation in underway if operation.kind.adds_task}
    known = [task for task in tasks if task in tree.task_modules or task in coming]
    if not known:
        return Refusal(
            f"growth: the net knows {_list(tree.task_modules)}, the teacher brings "
            f"{_list(tasks)}; add a task module for a task that the net knows, through which the "
            "category module can be transplanted"
        )
    return [
        *(Operation(OperationKind.NEW_CATEGORY, category, task) for task in known),
        *(Operation(OperationKind.NEW_TASK, category, task) for task in tasks if task not in known),
    ]


def _category(
    tree: NetTree | None,
    offer: Offer,
    underway: Collection[Operation],
    owner: Callable[[str], str | None],
) -> str | Refusal:
    """Return the name under which a category module is added: a lab's second one gets -v2."""
    category = offer.category
    coming = {each.category: each.task for each in sorted(underway, key=lambda each: each.task)}
    taken = {*(tree.category_modules if tree is not None else ()), *coming}
    if category not in taken:
        return category
    if owner(category) != offer.site:
        remedy = "ship this teacher under another category name"
        if category in coming:
            return Refusal(
                f"growth: category '{category}' is being merged (task '{coming[category]}') from "
                f"another lab's submission; wait for its end, or {remedy}"
            )
        return Refusal(
            f"growth: category '{category}' is in the net already, from another lab "
            f"({owner(category)}), and a merge never changes what the net holds; {remedy}"
        )
    names = (f"{category}-v{number}" for number in itertools.count(2))
    free = next(name for name in names if name not in taken)
    if not offer.new_version:
        return Refusal(
            f"growth: category '{category}' is in the net or on its way already, from this very "
            "lab, and a merge never changes what the net holds; to add this teacher beside it as "
            f"'{free}', set new_version = true in site.toml"
        )
    return free


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
