"""``rootstock net found | learn | connect``: grow the net on samples of the operator's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.common.config import load
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.deploy.cli.access import number_of, operations
from rootstock.deploy.cli.options import AsJson, Config, GreyRange, Seed, Steps
from rootstock.deploy.output import PEOPLE, listed, note, print_result

if TYPE_CHECKING:
    from rootstock.coordinator.merges.result import OperatorJoin

Samples = Annotated[
    Path, typer.Option("--samples", help="Folder of CATEGORY/yes/… and CATEGORY/no/… images.")
]


def learn(
    name: Annotated[str, typer.Argument(help="Name of the new task.")],
    config: Config,
    samples: Samples,
    categories: Annotated[
        str, typer.Option(help="With commas; default: all that the folder has samples of.")
    ] = "",
    source: Annotated[
        str | None, typer.Option("--from", help="Fine-tune this task's module as the new one.")
    ] = None,
    grey_range: GreyRange = None,
    steps: Steps = 400,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Learn a new task module on frozen category modules, and queue its joins.

    What is in the net does not change. A coordinator that runs commits what was queued.
    """
    from rootstock.common.distillation.settings import TaskLearningSettings
    from rootstock.coordinator.learning.learn import Learner
    from rootstock.coordinator.merges.own_samples import categories_in
    from rootstock.coordinator.merges.pending import published_plan
    from rootstock.coordinator.net.reader import NetReader

    settings = load(config, CoordinatorConfig)
    plan = published_plan(settings)
    with NetReader.open(settings) as net:
        learned = Learner(
            net.store, net.tree(number_of(net)), samples, _range(grey_range, settings), note
        ).task(
            name,
            list(listed(categories)) or categories_in(samples),
            next(iter(plan.initial_task_modules.values()), None),
            source,
            TaskLearningSettings(steps=steps, seed=seed),
        )
    with operations(settings) as (operator, running):
        merges = operator.learn_task(name, learned, source)
    joins = [
        (merge, category, name, join)
        for merge, (category, join) in zip(merges, learned.joins.items(), strict=True)
    ]
    _print_queued(joins, running=running, as_json=as_json)


def found(
    config: Config,
    samples: Samples,
    categories: Annotated[
        str, typer.Option(help="With commas; default: all that wait and have samples.")
    ] = "",
    grey_range: GreyRange = None,
    steps: Steps = 400,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Found the net on a task module learned on the category modules of several labs.

    Needs growth.automatic = false, so that the first teacher is held until several wait. The first
    category's module is joined to it; the others are merged like any category after it.
    """
    from rootstock.common.distillation.settings import TaskLearningSettings
    from rootstock.coordinator.learning.founding import (
        chosen_categories,
        founding_merge,
        waiting_categories,
    )
    from rootstock.coordinator.learning.learn import Learner
    from rootstock.coordinator.merges.own_samples import categories_in
    from rootstock.coordinator.merges.pending import published_plan
    from rootstock.coordinator.net.reader import NetReader

    settings = load(config, CoordinatorConfig)
    plan = published_plan(settings)
    with NetReader.open(settings) as net:
        merge = founding_merge(net.registry)
        waiting = waiting_categories(net.registry, merge, plan)
        learned = Learner(net.store, waiting, samples, _range(grey_range, settings), note).task(
            merge.task,
            chosen_categories(waiting, merge.category, categories_in(samples), listed(categories)),
            plan.initial_task_modules.get(merge.task),
            None,
            TaskLearningSettings(steps=steps, seed=seed),
        )
    with operations(settings) as (operator, running):
        operator.found_net(merge.id, learned)
    value = {
        "merge": merge.id,
        "task": merge.task,
        "categories": [
            {"category": name, **_learned(join)} for name, join in learned.joins.items()
        ],
        "coordinator_runs": running,
    }
    lines = [_line(category, merge.task, join) for category, join in learned.joins.items()]
    lines.append(f"merge {merge.id} founds the net on it, with {merge.category}")
    print_result(value, *lines, as_json=as_json)
    _say_queued(running=running, as_json=as_json)


def connect(
    category: Annotated[str, typer.Argument(help="A category of the net.")],
    task: Annotated[str, typer.Argument(help="A task of the net, not joined to the category.")],
    config: Config,
    samples: Samples,
    grey_range: GreyRange = None,
    steps: Steps = 300,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Join a category and a task of the net: by no adapter, another task's, or a new one.

    Which one is best is judged on samples that none was learned from.
    """
    from rootstock.common.distillation.settings import BackDistillationSettings
    from rootstock.coordinator.learning.learn import Learner
    from rootstock.coordinator.net.reader import NetReader

    settings = load(config, CoordinatorConfig)
    with NetReader.open(settings) as net:
        join = Learner(
            net.store, net.tree(number_of(net)), samples, _range(grey_range, settings), note
        ).connection(category, task, BackDistillationSettings(steps=steps, seed=seed))
    with operations(settings) as (operator, running):
        merge = operator.connect(category, task, join)
    _print_queued([(merge, category, task, join)], running=running, as_json=as_json)


def _range(
    given: tuple[float, float] | None, settings: CoordinatorConfig
) -> tuple[float, float] | None:
    return settings.samples.grey_range if given is None else given


def _print_queued(
    joins: list[tuple[str, str, str, OperatorJoin]], *, running: bool, as_json: bool
) -> None:
    rows = [
        {"merge": merge, "category": category, "task": task, **_learned(join)}
        for merge, category, task, join in joins
    ]
    lines = (
        f"{merge}  {_line(category, task, join)} ({join.how})"
        for merge, category, task, join in joins
    )
    print_result({"joins": rows, "coordinator_runs": running}, *lines, as_json=as_json)
    _say_queued(running=running, as_json=as_json)


def _say_queued(*, running: bool, as_json: bool) -> None:
    if not running and not as_json:
        PEOPLE.print("queued; merged once `rootstock coordinator run` runs")


def _learned(join: OperatorJoin) -> dict[str, Any]:
    return join.model_dump(exclude={"adapter", "submission"})


def _line(category: str, task: str, join: OperatorJoin) -> str:
    return f"{category} → {task}  error {join.error:.1f}% on {join.judged_on} images"
