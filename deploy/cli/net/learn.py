"""``rootstock net found | learn | connect``: grow the net on samples of the operator's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rootstock.deploy.cli.extras import needs_coordinator
from rootstock.deploy.cli.net.options import AsJson, Config, number_of
from rootstock.deploy.cli.operations import operations
from rootstock.deploy.output import PEOPLE, RESULT, print_json

if TYPE_CHECKING:
    from rootstock.coordinator.merges.result import OperatorJoin

QUEUED = "queued; merged once `rootstock coordinator run` runs"
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
    steps: Annotated[int, typer.Option(min=1, max=1_000_000)] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn a new task module on frozen category modules, and queue its joins.

    What the net holds does not change. A coordinator that runs commits what was queued.
    """
    with needs_coordinator("net learn"):
        from rootstock.common.distillation.settings import TaskLearningSettings
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.learning.learn import Learner
        from rootstock.coordinator.merges.own_samples import categories_in
        from rootstock.coordinator.merges.pending import published_plan
        from rootstock.coordinator.net.reader import NetReader
        from rootstock.coordinator.paths import StatePaths
    from rootstock.common.config import load

    settings = load(config, CoordinatorConfig)
    plan = published_plan(StatePaths(settings))
    with NetReader.open(settings) as view:
        tree = view.tree(number_of(view, None))
        begin = next(iter(plan.initial_task_modules.values()), None)
        learned = Learner(view.store, tree, samples).task(
            name,
            _names(categories) or categories_in(samples),
            begin,
            source,
            TaskLearningSettings(steps=steps, seed=seed),
        )
    with operations(settings) as (operator, running):
        merges = operator.learn_task(name, learned, source)
    rows = [
        _row(merge, category, name, join)
        for merge, (category, join) in zip(merges, learned.joins.items(), strict=True)
    ]
    _show(rows, running=running, as_json=as_json)


def found(
    config: Config,
    samples: Samples,
    categories: Annotated[
        str, typer.Option(help="With commas; default: all that wait and have samples.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000)] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Found the net on a task module learned on the category modules of several labs.

    Needs growth.automatic = false, so that the first teacher is held until several wait. The first
    category's module is joined to it; the others are merged like any category after it.
    """
    with needs_coordinator("net found"):
        from rootstock.common.distillation.settings import TaskLearningSettings
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.learning.found import (
            chosen_categories,
            founding_merge,
            waiting_categories,
        )
        from rootstock.coordinator.learning.learn import Learner
        from rootstock.coordinator.merges.own_samples import categories_in
        from rootstock.coordinator.merges.pending import published_plan
        from rootstock.coordinator.net.reader import NetReader
        from rootstock.coordinator.paths import StatePaths
    from rootstock.common.config import load

    settings = load(config, CoordinatorConfig)
    plan = published_plan(StatePaths(settings))
    with NetReader.open(settings) as view:
        merge = founding_merge(view.registry)
        waiting = waiting_categories(view.registry, merge, plan)
        chosen = chosen_categories(
            waiting, merge.category, categories_in(samples), _names(categories)
        )
        learned = Learner(view.store, waiting, samples).task(
            merge.task,
            chosen,
            plan.initial_task_modules.get(merge.task),
            None,
            TaskLearningSettings(steps=steps, seed=seed),
        )
    with operations(settings) as (operator, running):
        operator.found_net(merge.id, learned)
    rows = [
        {"category": category, **join.model_dump(exclude={"adapter", "submission"})}
        for category, join in learned.joins.items()
    ]
    if as_json:
        told = {"merge": merge.id, "task": merge.task, "categories": rows}
        print_json({**told, "coordinator_runs": running})
        return
    for row in rows:
        RESULT.print(
            f"{row['category']} → {merge.task}  error {row['error']:.1f}% on {row['judged_on']} "
            "images",
            soft_wrap=True,
        )
    RESULT.print(f"merge {merge.id} founds the net on it, with {merge.category}", soft_wrap=True)
    if not running:
        PEOPLE.print(QUEUED)


def connect(
    category: Annotated[str, typer.Argument(help="Held by the net.")],
    task: Annotated[str, typer.Argument(help="Held by the net, and not joined to it.")],
    config: Config,
    samples: Samples,
    steps: Annotated[int, typer.Option(min=1, max=1_000_000)] = 300,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Join a category and a task that the net holds: by no adapter, another task's, or a new one.

    Which one is best is judged on samples that none was learned from.
    """
    with needs_coordinator("net connect"):
        from rootstock.common.distillation.settings import BackDistillationSettings
        from rootstock.coordinator.config import CoordinatorConfig
        from rootstock.coordinator.learning.learn import Learner
        from rootstock.coordinator.net.reader import NetReader
    from rootstock.common.config import load

    settings = load(config, CoordinatorConfig)
    with NetReader.open(settings) as view:
        tree = view.tree(number_of(view, None))
        join = Learner(view.store, tree, samples).connection(
            category, task, BackDistillationSettings(steps=steps, seed=seed)
        )
    with operations(settings) as (operator, running):
        merge = operator.connect(category, task, join)
    _show([_row(merge, category, task, join)], running=running, as_json=as_json)


def _show(rows: list[dict[str, object]], *, running: bool, as_json: bool) -> None:
    if as_json:
        print_json({"joins": rows, "coordinator_runs": running})
        return
    for row in rows:
        RESULT.print(
            f"{row['merge']}  {row['category']} → {row['task']}  error {row['error']:.1f}% on "
            f"{row['judged_on']} images ({row['how']})",
            soft_wrap=True,
        )
    if not running:
        PEOPLE.print(QUEUED)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _row(merge: str, category: str, task: str, join: OperatorJoin) -> dict[str, object]:
    learned = join.model_dump(exclude={"adapter", "submission"})
    return {"merge": merge, "category": category, "task": task, **learned}
