"""Which open merges can run now, and which wait for another one. Pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence

from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.growth.states import MergeState


@dataclasses.dataclass(frozen=True, slots=True)
class OpenMerge:
    """An open merge without its documents: reading it costs little and cannot fail."""

    id: str
    submission_id: str
    site: str
    """Whose submission it is."""
    operation: Operation
    state: MergeState
    released: bool
    """Whether the operator lets it run, or has decided about it."""
    decided: bool = False
    """Whether the operator has decided about it: then it is not waited with."""


def ready(merges: Sequence[OpenMerge], tasks: Collection[str], jobs_per_site: int = 2) -> list[str]:
    """Return the ids of those of all open merges that can run, in the order given.

    Of each site so many are distilled at once: however many one lab ships, another's merge is
    behind a few of them, not behind all.

    A task that comes with a category module waits until the merge of that module has ended
    (paper, appendix: way 2). A category for a task that is on its way waits until the net has it
    among its `tasks`; if that came to nothing, the merge runs and fails.
    """
    adding_categories = {
        merge.submission_id
        for merge in merges
        if merge.operation.kind is not OperationKind.NEW_TASK
    }
    coming_tasks = {merge.operation.task for merge in merges if merge.operation.kind.adds_task}

    def can_run(merge: OpenMerge) -> bool:
        kind = merge.operation.kind
        if not merge.released:
            return False
        if kind is OperationKind.NEW_TASK:
            return merge.submission_id not in adding_categories
        if kind.adds_task or merge.state is not MergeState.QUEUED:
            return True
        return merge.operation.task not in coming_tasks or merge.operation.task in tasks

    running = Counter(merge.site for merge in merges if merge.state is MergeState.DISTILLING)

    def has_turn(merge: OpenMerge) -> bool:
        if merge.operation.kind.is_direct or merge.state is not MergeState.QUEUED or merge.decided:
            return True
        running[merge.site] += 1
        return running[merge.site] <= jobs_per_site

    return [merge.id for merge in merges if can_run(merge) and has_turn(merge)]
