"""Makes the history again from the registry: mends every ended merge's run where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rootstock.common.documents import Document
from rootstock.common.errors import ConflictError, RootstockError, StorageError
from rootstock.common.files import only_one
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.history.mlflow_history import History
from rootstock.coordinator.history.mlflow_history import Restored as Restored
from rootstock.coordinator.history.record import MergeRecord
from rootstock.coordinator.history.recorder import gather, show_head
from rootstock.coordinator.jobs.inspection import Inspection, inspect, inspection_job
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import OPEN_MERGES, Merge, Registry


class RestoredMerge(Document):
    """What became of one merge's run."""

    merge_id: str
    category: str
    task: str
    state: str
    net_version: int | None
    run_id: str
    what: Restored


class Rebuilt(Document):
    """What became of a net's history."""

    name: str
    """Of the experiment and of the registered model; not the net's if that is another's there."""
    merges: tuple[RestoredMerge, ...]


def rebuild(
    config: CoordinatorConfig, on_merge: Callable[[RestoredMerge], None] = lambda _: None
) -> Rebuilt:
    """Make MLflow show every ended merge, as if it had been logged when it ended.

    Returns what was done, merge by merge, in the order in which they ended; calls `on_merge` after
    each. While a coordinator runs, what it has not logged yet is left to it, and nothing but MLflow
    is written. If MLflow does not take a merge, for whatever reason (see `errors`), what was done
    until then stays.
    """
    paths = StatePaths(config)
    done = []
    with NetReader.open(config) as net, _alone(paths.state) as alone, ExitStack() as stack:
        # The scratch folder is the coordinator's that runs, and that one empties it at its start.
        scratch = None if alone else Path(stack.enter_context(TemporaryDirectory()))
        history = History.of(config, scratch)
        namespace = history.connect()
        merges = [merge for merge in net.registry.merges.all() if merge.state not in OPEN_MERGES]
        for ended in sorted(merges, key=lambda merge: merge.finished_at or 0.0):
            merge = net.registry.merges.get(ended.id)  # a coordinator may have rolled it back since
            if not (alone or merge.logged):
                continue
            what, run_id = history.restore(_with_features(gather(net, config, merge), merge, paths))
            if not merge.logged:
                with closing(Registry(paths.database)) as registry:
                    registry.merges.update(merge.id, logged=True)
            done.append(
                RestoredMerge(
                    merge_id=merge.id,
                    category=merge.category,
                    task=merge.task,
                    state=merge.state,
                    net_version=merge.net_version,
                    run_id=run_id,
                    what=what,
                )
            )
            on_merge(done[-1])
        show_head(net.registry, history)
    return Rebuilt(name=namespace.name, merges=tuple(done))


def _with_features(record: MergeRecord, merge: Merge, paths: StatePaths) -> MergeRecord:
    """Inspect the join of a merge that an earlier release committed: it kept no features.

    Nets may run in this process: it serves nobody.
    """
    if merge.inspection is not None or record.tree is None or record.number is None:
        return record
    job = inspection_job(merge, record.tree, paths)
    if not job.features:
        return record
    try:
        done = Inspection.parse(inspect(job.canonical(), torch.get_num_threads()), what="features")
    except RootstockError as error:
        return record.model_copy(update={"no_features": str(error)})
    return record.model_copy(update={"features": done.features, "no_features": done.no_features})


@contextmanager
def _alone(state: Path) -> Iterator[bool]:
    """Take the coordinator's lock if it is free; say whether it was.

    In a folder that this user cannot write it counts as taken, too.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(state, "coordinator"))
        except (ConflictError, StorageError):
            yield False
        else:
            yield True
