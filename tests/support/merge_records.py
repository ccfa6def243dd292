"""Nets and records to draw and to log."""

from __future__ import annotations

import hashlib

from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry
from rootstock.coordinator.history.record import Join, MergeRecord
from rootstock.coordinator.jobs.model import CurvePoint

SPEC = ArchitectureSpec(name="small-vgg", split="pool1")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def blob(text: str) -> BlobEntry:
    return BlobEntry(digest=digest(text), size=100, tensors={})


def adapter(text: str) -> AdapterEntry:
    return AdapterEntry(spec=AdapterSpec(in_channels=16, out_channels=16), blob=blob(text))


def module(text: str) -> ModuleRef:
    return ModuleRef(blob=blob(text), architecture=SPEC, submission=digest("manifest " + text))


def net(categories: list[str], tasks: list[str] | None = None) -> NetTree:
    """A net whose first category founded it and whose others are joined by adapters."""
    tasks = tasks or ["classification"]
    edges = [
        Edge(
            category=category,
            task=task,
            adapter=adapter(category + task) if place else None,
            error=2.5 + place % 20,
        )
        for place, category in enumerate(categories)
        for task in tasks
    ]
    return NetTree(
        architecture=SPEC,
        tasks=tuple(TaskSpec(name=task) for task in tasks),
        category_modules={name: module(name) for name in categories},
        task_modules={task: module(task) for task in tasks},
        edges=tuple(edges),
    )


def record(categories: list[str], **changes: object) -> MergeRecord:
    """The merge that brought the last of the categories."""
    tree = net(categories)
    number = len(categories) - 1
    values: dict[str, object] = {
        "net": "digits",
        "merge_id": f"m{number}",
        "category": categories[-1],
        "task": "classification",
        "site": f"lab-{categories[-1]}",
        "operation": "new-category" if number else "found",
        "state": "merged",
        "parent_number": number - 1 if number else None,
        "parent_digest": digest(f"version {number - 1}") if number else None,
        "number": number,
        "digest": digest(f"version {number}"),
        "digests": {
            "category_module": digest(categories[-1]),
            "manifest": digest("manifest " + categories[-1]),
            "shared_samples": digest("shared"),
        },
        "adapter_uri": "file:///store/blobs/ab/ab",
        "candidate": "refined" if number else None,
        "parameters": {"convs": 1, "kernel": 1, "policy": "exp2", "ridge": 1e-6},
        "numbers": {
            "teacher_error": 2.5,
            "no_adapter_error": 54.0,
            "zero_sample_error": 31.25,
            "refined_error": 3.5,
            "seconds": 12.5,
        },
        "curves": tuple(
            CurvePoint(
                stage="few-sample", step=s, loss=1 / (s + 1), task_loss=0.5, distillation_loss=0.25
            )
            for s in range(0, 40, 10)
        ),
        "created_at": "2026-01-02T03:04:05+00:00",
        "finished_at": "2026-01-02T03:05:05+00:00",
        "tree": tree,
        "earlier": tuple(
            Join(category=edge.category, task=edge.task, error=edge.error, teacher_error=1.5)
            for edge in tree.edges
            if edge.category != categories[-1]
        ),
    }
    return MergeRecord.model_validate(values | changes)
