"""Publishes the plan: common initial weights in the store, one document with their digests."""

from __future__ import annotations

from pathlib import Path

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConflictError, StorageError
from rootstock.common.files import write_bytes
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.protocol import Plan
from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.jobs.checkpoint import put_tensors
from rootstock.coordinator.plan.start import require_same_start, start_from


def publish_plan(config: CoordinatorConfig, store: BlobStore, path: Path) -> Plan:
    """Return the plan that labs train under, made at the first start and kept from then on.

    Kept, not made anew: another version of torch could draw other initial weights from the same
    seed, and labs that have trained would then be under an old plan. Raises ConflictError if the
    configuration asks for another one than labs have seen, StorageError if the store lacks it.
    """
    if path.exists():
        plan = Plan.parse(path.read_bytes(), what=f"plan {path}")
        wanted = (config.net, config.plan.architecture, config.plan.tasks, config.plan.limits)
        if (plan.net, plan.architecture, plan.tasks, plan.limits) != wanted:
            raise ConflictError(
                f"{path}: labs have seen a plan that the configuration no longer describes; put "
                "back net, plan.architecture, plan.tasks and plan.limits, or begin a new net in "
                "another state folder"
            )
        require_same_start(config.plan.start, plan.start, path)
        if not store.has(plan.content_digest()):
            raise StorageError(
                f"artifacts: the store lacks the plan that labs have seen ({path}); mount its "
                "disk, give the store of then, or restore it from a backup"
            )
        return plan
    category_module, task_modules = initial_modules(
        config.plan.architecture, config.plan.tasks, config.plan.seed
    )
    start = start_from(
        config.plan.start,
        config.plan.licence,
        config.plan.architecture,
        category_module,
        task_modules,
    )
    plan = Plan(
        net=config.net,
        architecture=config.plan.architecture,
        tasks=config.plan.tasks,
        initial_category_module=put_tensors(store, category_module.state_dict()),
        initial_task_modules={
            name: put_tensors(store, module.state_dict()) for name, module in task_modules.items()
        },
        limits=config.plan.limits,
        start=start,
    )
    store.put_bytes(plan.canonical())
    write_bytes(path, plan.canonical())
    return plan
