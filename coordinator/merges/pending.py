"""The growth plan of a coordinator, read from its state folder; no server is needed."""

from __future__ import annotations

from rootstock.common.errors import NotFoundError
from rootstock.common.files import storage_errors
from rootstock.common.protocol import Plan
from rootstock.coordinator.config import StateConfig
from rootstock.coordinator.growth.operations import Operation
from rootstock.coordinator.growth.planning import GrowthPlan, plan_growth
from rootstock.coordinator.merges.result import of_labs
from rootstock.coordinator.net.objects import read_teacher, submitted
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.registry import OPEN_MERGES, SubmissionState

WAITING = (SubmissionState.RECEIVED, SubmissionState.ADMITTED)


def published_plan(config: StateConfig) -> Plan:
    """Return the plan that the coordinator published last; NotFoundError if none has run there."""
    path = StatePaths(config).plan
    try:
        with storage_errors(path):
            return Plan.parse(path.read_bytes(), what="plan")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: no coordinator has published a plan here; start `rootstock coordinator run`"
        ) from error


def growth_plan(view: NetReader, config: StateConfig) -> GrowthPlan:
    """Plan the open merges and the submissions that no merge was queued for yet."""
    registry = view.registry
    head = view.head
    tree = None if head is None else view.tree(head)
    merges = registry.merges.all()
    decided = {merge.submission_id for merge in merges if not merge.void}
    opened = [
        (
            merge.submission_id,
            submitted(registry.submissions.get(merge.submission_id)),
            Operation(merge.operation, merge.category, merge.task),
        )
        for merge in merges
        if merge.state in OPEN_MERGES
    ]
    waiting = [
        (submission.id, submitted(submission))
        for submission in of_labs(registry.submissions.all(*WAITING))
        if submission.id not in decided
    ]

    def owner(category: str) -> str | None:
        if tree is None or category not in tree.category_modules:
            return None
        return read_teacher(view.store, tree.category_modules[category].submission).site

    return plan_growth(tree, opened, waiting, published_plan(config), owner)
