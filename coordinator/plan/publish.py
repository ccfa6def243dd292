"""The plan as published: common initial weights in the store, one document with their digests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConflictError
from rootstock.common.files import write_bytes
from rootstock.common.nets.architectures import initial_modules
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import BlobEntry
from rootstock.common.weights.safetensors_io import write
from rootstock.coordinator.config import CoordinatorConfig


def publish_plan(config: CoordinatorConfig, store: BlobStore, path: Path) -> Plan:
    """Return the plan that labs train under, made at the first start and kept from then on.

    Kept, not made anew: another version of torch could draw other initial weights from the same
    seed, and labs that have trained would then be under an old plan.

    Raises
    ------
    ConflictError
        If the configuration asks for another architecture, other tasks, a net of another name
        or other limits than the plan that labs have seen.
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
        return plan
    category_module, task_modules = initial_modules(
        config.plan.architecture, config.plan.tasks, config.plan.seed
    )
    plan = Plan(
        net=config.net,
        architecture=config.plan.architecture,
        tasks=config.plan.tasks,
        initial_category_module=_put(category_module, store),
        initial_task_modules={name: _put(module, store) for name, module in task_modules.items()},
        limits=config.plan.limits,
    )
    store.put_bytes(plan.canonical())
    write_bytes(path, plan.canonical())
    return plan


def _put(module: nn.Module, store: BlobStore) -> BlobEntry:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.safetensors"
        entry = write(path, module.state_dict())
        store.put_file(path, entry.digest, verified=True, move=True)
    return entry
