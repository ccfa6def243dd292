"""Which operations a submission calls for (METHODS.md, "Growing"; paper, figure 1). Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import ClassVar

from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import TeacherManifest


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The first teacher net becomes the transplant net: f and g joined with no adapter."""

    name: ClassVar[str] = "found"
    category: str
    task: str


@dataclasses.dataclass(frozen=True, slots=True)
class NewCategory:
    """A category module is joined to a task module that the net holds, by back-distillation."""

    name: ClassVar[str] = "new-category"
    category: str
    task: str


@dataclasses.dataclass(frozen=True, slots=True)
class NewTask:
    """A task module comes along with its category module, joined to it alone ("way 2").

    There is nothing to learn: the teacher net holds both. It follows the operation that brings
    the category module.
    """

    name: ClassVar[str] = "new-task"
    category: str
    task: str


@dataclasses.dataclass(frozen=True, slots=True)
class LearnTask:
    """A task module that the operator learned on what the net holds ("way 1", or fine-tuning).

    It is joined to one category; `Connect` joins it to the others that it was learned on.
    """

    name: ClassVar[str] = "learn-task"
    category: str
    task: str


@dataclasses.dataclass(frozen=True, slots=True)
class Connect:
    """A category module and a task module that the net holds are joined, on samples."""

    name: ClassVar[str] = "connect"
    category: str
    task: str


Operation = Found | NewCategory | NewTask | LearnTask | Connect

BRINGING = frozenset({Found.name, NewTask.name, LearnTask.name})
"""Operations that bring a task module; the others join a category to one that the net holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why the net has no room for a submission, with the remedy."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Underway:
    """What open merges are about to add to the net."""

    joins: frozenset[tuple[str, str]] = frozenset()
    """(category, task) pairs."""
    tasks: frozenset[str] = frozenset()
    """Tasks whose modules come along with one of them."""


def decide(
    tree: NetTree | None,
    manifest: TeacherManifest,
    plan: Plan,
    underway: Underway = Underway(),
    owner: Callable[[str], str | None] = lambda _: None,
) -> list[Operation] | Refusal:
    """Say which operations a teacher net calls for, in the order to run them.

    Parameters
    ----------
    tree
        The head's tree; None before the net is founded.
    manifest
        An admitted teacher net's.
    plan
        Names the tasks of the universal net; its order is the order of operations.
    underway
        What open merges are about to add.
    owner
        Which lab brought a category that the net holds, or that is on its way.

    Returns
    -------
    list of Operation, or Refusal
        Found (then NewTask for each further task module) when there is no net yet; else
        NewCategory for each task that the net knows or is about to know, then NewTask for the
        others. A refusal when the category is in the net or on its way, a task is not in the
        plan, or the teacher shares no task with the net: there is nothing to transplant it through.
    """
    if unknown := sorted(task for task in manifest.task_modules if plan.task(task) is None):
        return Refusal(
            f"growth: task '{unknown[0]}' is not one of the plan's: "
            f"{_list(task.name for task in plan.tasks)}; leave its task module out, or have the "
            "coordinator's operator add the task"
        )
    category = _category(tree, manifest, underway, owner)
    if isinstance(category, Refusal):
        return category
    tasks = [task.name for task in plan.tasks if task.name in manifest.task_modules]
    if tree is None:
        first, *others = tasks
        return [Found(category, first), *(NewTask(category, task) for task in others)]
    held = {*tree.task_modules, *underway.tasks}
    known = [task for task in tasks if task in held]
    if not known:
        return Refusal(
            f"growth: the net knows {_list(tree.task_modules)}, the teacher brings "
            f"{_list(tasks)}; add a task module for a task that the net knows, through which the "
            "category module can be transplanted"
        )
    return [
        *(NewCategory(category, task) for task in known),
        *(NewTask(category, task) for task in tasks if task not in held),
    ]


def _category(
    tree: NetTree | None,
    manifest: TeacherManifest,
    underway: Underway,
    owner: Callable[[str], str | None],
) -> str | Refusal:
    """Return the name under which a category module comes in: a second one of a lab gets -v2."""
    category = manifest.category
    coming = dict(sorted(underway.joins))
    held = {*(tree.category_modules if tree is not None else ()), *coming}
    if category not in held:
        return category
    if owner(category) != manifest.site:
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
    free = next(name for name in names if name not in held)
    if not manifest.new_version:
        return Refusal(
            f"growth: category '{category}' is in the net or on its way already, from this very "
            "lab, and a merge never changes what the net holds; to add this teacher beside it as "
            f"'{free}', set new_version = true in site.toml"
        )
    return free


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
