"""The next net version: the tree with one more join, and the commit that names it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import ConflictError
from common.nets.calibration import Calibration
from common.nets.graph import Edge, ModuleRef, NetTree, VersionCommit
from common.nets.spec import Setting
from common.plan import Plan
from common.weights.manifest import AdapterEntry, Digest, TeacherManifest
from coordinator.growth.operations import Found, NewCategory, NewTask, Operation


def next_version(
    tree: NetTree | None,
    parent: VersionCommit | None,
    operation: Operation,
    manifest: TeacherManifest,
    plan: Plan,
    *,
    number: int,
    manifest_digest: Digest,
    adapter: AdapterEntry | None,
    calibration: Calibration,
    error: float | None,
    merge: Mapping[str, Setting | None],
    created_at: str,
) -> tuple[NetTree, VersionCommit]:
    """Return the tree and the commit that an operation leads to.

    Parameters
    ----------
    tree, parent
        The head's; both None for `Found`.
    operation
        What was done.
    number
        Of the new version: one more than any so far, rolled back ones included.
    manifest, manifest_digest
        Of the submission that brings the modules.
    adapter
        The accepted candidate; None joins the two modules directly.
    calibration
        Of the new join's output; the identity where the two were trained together.
    error
        The accepted candidate's, in percent, calibrated.
    merge
        The record that the commit keeps: merge id, operation, numbers.
    created_at
        ISO 8601 in UTC.

    Raises
    ------
    ConflictError
        If the net was founded, or the category came from another submission, in the meantime.
    NotFoundError
        If `NewCategory` names a task, or `NewTask` a category, that the net does not hold.
    """
    grown = _with_modules(tree, operation, manifest, plan, manifest_digest)
    grown = grown.with_edge(
        Edge(
            category=operation.category,
            task=operation.task,
            adapter=adapter,
            calibration=calibration,
            error=error,
        )
    )
    commit = VersionCommit(
        tree=grown.content_digest(),
        parent=None if parent is None else parent.content_digest(),
        number=number,
        merge=dict(merge),
        created_at=created_at,
    )
    return grown, commit


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
