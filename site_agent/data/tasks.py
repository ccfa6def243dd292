"""Which of the plan's tasks a lab teaches."""

from __future__ import annotations

from collections.abc import Iterable

from rootstock.common.errors import ConfigurationError
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Plan
from rootstock.site_agent.config import SiteConfig

MASKED_KINDS = ("voc",)
"""Kinds of data that say the class of every pixel."""


def tasks_of(config: SiteConfig, plan: Plan) -> tuple[TaskSpec, ...]:
    """Return the tasks that the teacher learns, in the plan's order.

    Refuses one that the plan does not have, and one that needs masks that the lab lacks.
    """
    wanted = [task.name for task in plan.tasks] if config.tasks is None else config.tasks
    for name in wanted:
        if plan.task(name) is None:
            raise ConfigurationError(
                f"tasks: the plan of net '{plan.net}' has no task '{name}'; choose from "
                + ", ".join(task.name for task in plan.tasks)
            )
    tasks = tuple(task for task in plan.tasks if task.name in wanted)
    for task in tasks:
        if needs_masks([task]) and config.data.kind not in MASKED_KINDS:
            raise ConfigurationError(
                f"task '{task.name}' is of kind '{task.kind}' and data.kind = "
                f"'{config.data.kind}' has labels of images only, no masks; give data of kind "
                f"{', '.join(map(repr, MASKED_KINDS))}, or teach what there are labels for: "
                f"tasks = {[other.name for other in plan.tasks if not needs_masks([other])]}"
            )
    return tasks


def needs_masks(tasks: Iterable[TaskSpec]) -> bool:
    """Say whether any of the tasks labels pixels."""
    return any(task.kind == "binary-segmentation" for task in tasks)
