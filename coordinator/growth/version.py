"""The next net version's tree: one more join. Pure."""

from __future__ import annotations

from common.errors import ConflictError
from common.nets.calibration import Calibration
from common.nets.graph import Edge, ModuleRef, NetTree
from common.plan import Plan
from common.weights.manifest import AdapterEntry, Digest, TeacherManifest
from coordinator.growth.operations import Found, NewCategory, NewTask, Operation


def grown(
    tree: NetTree | None,
    operation: Operation,
    manifest: TeacherManifest,
    plan: Plan,
    *,
    manifest_digest: Digest,
    adapter: AdapterEntry | None,
    calibration: Calibration,
    error: float | None,
) -> NetTree:
    """Return the tree that an operation leads to: one more join, and the modules that it needs.

    Parameters
    ----------
    tree
        The head's; None for `Found`.
    operation
        What was done.
    manifest, manifest_digest
        Of the submission that brings the modules.
    plan
        Its tasks are the net's.
    adapter
        The accepted candidate; None joins the two modules directly.
    calibration
        Of the new join's output; the identity where the two were trained together.
    error
        The accepted candidate's, in percent, calibrated.

    Raises
    ------
    ConflictError
        If the net was founded, or the category came from another submission, in the meantime.
    NotFoundError
        If `NewCategory` names a task, or `NewTask` a category, that the net does not hold.
    """
    return _with_modules(tree, operation, manifest, plan, manifest_digest).with_edge(
        Edge(
            category=operation.category,
            task=operation.task,
            adapter=adapter,
            calibration=calibration,
            error=error,
        )
    )


def _with_modules(
    tree: NetTree | None,
    operation: Operation,
    manifest: TeacherManifest,
    plan: Plan,
    manifest_digest: Digest,
) -> NetTree:
    category = ModuleRef(
        blob=manifest.category_module,
        architecture=manifest.architecture,
        submission=manifest_digest,
    )
    task = ModuleRef(
        blob=manifest.task_modules[operation.task],
        architecture=manifest.architecture,
        submission=manifest_digest,
    )
    match operation:
        case Found():
            if tree is not None:
                raise ConflictError(
                    "the net was founded by another submission in the meantime; decide again"
                )
            empty = NetTree(architecture=plan.architecture, tasks=plan.tasks)
            return _with_category(empty, operation.category, category).with_task(
                operation.task, task
            )
        case NewCategory():
            return _with_category(_founded(tree), operation.category, category)
        case NewTask():
            founded = _founded(tree)
            if founded.category_modules.get(operation.category, category) != category:
                raise ConflictError(
                    f"the net's category module '{operation.category}' came with another "
                    "submission, which this task module was not trained with; ship the teacher "
                    "under another category name"
                )
            # An operator may have added the task to the plan since the net was founded.
            known = NetTree.model_validate({**dict(founded), "tasks": plan.tasks})
            return known.with_task(operation.task, task)


def _with_category(tree: NetTree, name: str, module: ModuleRef) -> NetTree:
    """Add a category module unless an earlier operation of the same submission did."""
    if tree.category_modules.get(name) == module:
        return tree
    return tree.with_category(name, module)


def _founded(tree: NetTree | None) -> NetTree:
    if tree is None:
        raise ConflictError("the net is not founded yet; found it with the first submission")
    return tree
