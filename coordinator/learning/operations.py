"""What the operator's commands change on one coordinator's state.

The service calls this; so does a command that runs in the place of a coordinator that is down.
"""

from __future__ import annotations

from collections.abc import Mapping

from rootstock.common.artifacts.gc import Collection
from rootstock.common.protocol import Heads
from rootstock.common.weights.manifest import BlobEntry
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import collect_garbage
from rootstock.coordinator.learning.queue import found_with, queue_connection, queue_task
from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan import heads


class Operations:
    """Changes that an operator asks for, on one coordinator's state.

    Every blob that is named must be in the store already.
    """

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context
        self._heads = heads.HeadsFile(StatePaths(context.config).heads)

    def learn_task(self, task: str, learned: LearnedTask, source: str | None) -> list[str]:
        """Queue the joins of a learned task module; return the merges' ids, in their order."""
        return [merge.id for merge in queue_task(self._context, task, learned, source)]

    def found_net(self, merge_id: str, learned: LearnedTask) -> None:
        """Let the held merge found the net on a learned task module."""
        found_with(self._context, merge_id, learned)

    def connect(self, category: str, task: str, join: OperatorJoin) -> str:
        """Queue a further join; return the merge's id."""
        return queue_connection(self._context, category, task, join).id

    def publish_heads(
        self, origin: str, task_modules: Mapping[str, BlobEntry], rotation: BlobEntry | None
    ) -> Heads:
        """Publish auxiliary heads in place of those there are."""
        registry = self._context.registry
        return heads.publish(self._heads, registry, origin, dict(task_modules), rotation)

    def collect_garbage(self) -> Collection:
        """Delete the blobs that nothing needs any more; return what was there."""
        context = self._context
        return collect_garbage(
            context.registry,
            context.store,
            context.plan,
            self._heads.current(),
            grace_seconds=context.config.garbage.grace_seconds,
        )

    def retire_heads(self, reason: str) -> Heads:
        """Take the published heads back; return them."""
        return heads.retire(self._heads, self._context.registry, reason)
