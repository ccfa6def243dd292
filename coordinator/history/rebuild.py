"""The history again, from the ledger: every ended merge is held against MLflow and made whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from rootstock.common.artifacts.uri import open_store
from rootstock.common.documents import Document
from rootstock.common.errors import ConflictError, NotFoundError, RootstockError
from rootstock.common.files import only_one
from rootstock.common.identity.keys import load_or_create
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.history.mlflow_history import History, Restored
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.recorder import gather, show_head
from rootstock.coordinator.jobs.inspection import Inspection, inspect, inspection_job
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.publish import publish_plan
from rootstock.coordinator.registry import OPEN_MERGES, Merge, Registry

__all__ = ["Restored", "RestoredMerge", "rebuild"]


class RestoredMerge(Document):
    """What became of one merge's run."""

    merge_id: str
    category: str
    task: str
    state: str
    net_version: int | None
    run_id: str
    what: Restored


def _unwatched(restored: RestoredMerge) -> None:
    pass


def rebuild(
    config: CoordinatorConfig, on_merge: Callable[[RestoredMerge], None] = _unwatched
) -> list[RestoredMerge]:
    """Make MLflow show every ended merge, as if it had been logged when it ended.

    While a coordinator runs, what it has not logged yet is left to it.

    Parameters
    ----------
    config
        The coordinator's; `history.mlflow_uri` is where to.
    on_merge
        Called after each merge.

    Returns
    -------
    What was done, merge by merge, in the order in which they ended.

    Raises
    ------
    NotFoundError
        If no coordinator has run there.
    UnreachableError
        If MLflow does not answer; what was done until then stays.
    ConflictError
        If MLflow refuses a merge.
    """
    paths = StatePaths(config)
    done = []
    with _context(config, paths) as context, _alone(paths) as alone:
        history = History(config.history.mlflow_uri, config.net)
        history.check()
        history.ensure_experiment()
        registry = context.registry
        for merge in _ended(registry):
            if not (alone or merge.logged):
                continue
            what, run_id = history.restore(_whole(gather(context, paths, merge), merge, paths))
            registry.merges.update(merge.id, logged=True, mlflow_run_id=run_id)
            done.append(_restored(merge, run_id, what))
            on_merge(done[-1])
        show_head(context, history)
    return done


def _ended(registry: Registry) -> list[Merge]:
    merges = [merge for merge in registry.merges.all() if merge.state not in OPEN_MERGES]
    return sorted(merges, key=lambda merge: merge.finished_at or 0.0)


def _restored(merge: Merge, run_id: str, what: Restored) -> RestoredMerge:
    return RestoredMerge(
        merge_id=merge.id,
        category=merge.category,
        task=merge.task,
        state=merge.state,
        net_version=merge.net_version,
        run_id=run_id,
        what=what,
    )


def _whole(record: MergeRecord, merge: Merge, paths: StatePaths) -> MergeRecord:
    """Inspect the join of a merge that an earlier release committed: it kept no features.

    Nets may run in this process: it serves nobody.
    """
    if merge.inspection is not None or record.tree is None or record.number is None:
        return record
    job = inspection_job(merge, record.tree, paths)
    if not job.features:
        return record
    try:
        found = Inspection.parse(inspect(job.canonical(), torch.get_num_threads()), what="features")
    except RootstockError as error:
        return record.model_copy(update={"no_features": str(error)})
    return record.model_copy(update={"features": found.features, "no_features": found.no_features})


@contextmanager
def _context(config: CoordinatorConfig, paths: StatePaths) -> Iterator[CoordinatorContext]:
    if config.database is None and not paths.database_file.exists():
        raise NotFoundError(
            f"{paths.database_file}: no coordinator has run here; start `rootstock coordinator run`"
        )
    store = open_store(paths.artifacts, paths.cache)
    registry = Registry(paths.database)
    try:
        yield CoordinatorContext(
            registry=registry,
            store=store,
            plan=publish_plan(config, store, paths.plan),
            key=load_or_create(paths.key),
            config=config,
        )
    finally:
        registry.close()


@contextmanager
def _alone(paths: StatePaths) -> Iterator[bool]:
    """Hold the coordinator's lock if it is free; say whether it was."""
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(paths.state, "coordinator"))
            alone = True
        except ConflictError:
            alone = False
        yield alone
