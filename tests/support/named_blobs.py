"""Manifests and plans whose blobs are named, not made: growth looks at names only."""

from __future__ import annotations

import hashlib

from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Recipe, TeacherManifest
from rootstock.coordinator.growth.operations import Refusal, decide
from rootstock.coordinator.growth.version import grown

ARCHITECTURE = ArchitectureSpec(name="small-vgg", settings={"input_size": 32}, split="pool1")


def blob(name: str) -> BlobEntry:
    return BlobEntry(digest=hashlib.sha256(name.encode()).hexdigest(), size=8, tensors={})


def plan(*tasks: str) -> Plan:
    return Plan(
        net="animals",
        architecture=ARCHITECTURE,
        tasks=tuple(TaskSpec(name=task) for task in tasks),
        initial_category_module=blob("f"),
        initial_task_modules={task: blob(f"g {task}") for task in tasks},
    )


def teacher(category: str, *tasks: str) -> TeacherManifest:
    return TeacherManifest(
        site=f"{category}-lab",
        category=category,
        architecture=ARCHITECTURE,
        category_module=blob(f"f of {category}"),
        task_modules={task: blob(f"g of {category} for {task}") for task in tasks},
        metrics={f"error/{task}": 5.0 for task in tasks},
        recipe=Recipe(name="supervised"),
        plan=plan(*tasks).content_digest(),
    )


def adapter(name: str) -> AdapterEntry:
    return AdapterEntry(spec=AdapterSpec(in_channels=4, out_channels=4), blob=blob(name))


BOTH = plan("classification", "counting")


def net_of(*tasks: str) -> NetTree:
    """Found a net with the dog lab's teacher; every further task module comes along."""
    manifest = teacher("dog", *tasks)
    operations = decide(None, manifest, BOTH)
    assert not isinstance(operations, Refusal)
    tree = None
    for operation in operations:
        tree = grown(
            tree,
            operation,
            manifest,
            BOTH,
            manifest_digest=manifest.content_digest(),
            adapter=None,
            calibration=Calibration(),
            error=5.0,
        )
    assert tree is not None
    return tree
