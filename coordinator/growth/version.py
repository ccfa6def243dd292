"""The next net version's tree: one more join. Pure."""

from __future__ import annotations

from rootstock.common.errors import ConflictError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import AdapterEntry, Digest, TeacherManifest
from rootstock.coordinator.growth.operations import (
    Connect,
    Found,
    LearnTask,
    NewCategory,
    NewTask,
    Operation,
)


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
    learned: ModuleRef | None = None,
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
    learned
        The task module that founds the net, where it was learned on several labs' category
        modules; None adopts the submission's.

    Raises
    ------
    ConflictError
        If the net was founded, or the category came from another submission, in the meantime.
    NotFoundError
        If `NewCategory` names a task, or `NewTask` a category, that the net does not hold.
    """
    return _with_modules(tree, operation, manifest, plan, manifest_digest, learned).with_edge(
        Edge(
            category=operation.category,
            task=operation.task,
            adapter=adapter,
            calibration=calibration,
            error=error,
        )
    )


def category_ref(manifest: TeacherManifest, manifest_digest: Digest) -> ModuleRef:
    """Return how a tree names the category module that a submission brings."""
    return ModuleRef(
        blob=manifest.category_module,
        architecture=manifest.architecture,
        submission=manifest_digest,
    )


def task_ref(manifest: TeacherManifest, task: str, manifest_digest: Digest) -> ModuleRef:
    """Return how a tree names a task module that a submission brings."""
    return ModuleRef(
        blob=manifest.task_modules[task],
        architecture=manifest.architecture.above(),
        submission=manifest_digest,
    )


def _with_modules(
    tree: NetTree | None,
    operation: Operation,
    manifest: TeacherManifest,
    plan: Plan,
    manifest_digest: Digest,
    learned: ModuleRef | None,
) -> NetTree:
    category = category_ref(manifest, manifest_digest)
    if isinstance(operation, Connect):  # brings nothing: both modules are there
        return _founded(tree)
    task = learned or task_ref(manifest, operation.task, manifest_digest)
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
            return _knowing(founded, plan.tasks).with_task(operation.task, task)
        case LearnTask():
            founded = _founded(tree)
            held = founded.category_modules.get(operation.category)
            if held is None or held.blob != manifest.category_module:
                raise ConflictError(
                    f"the task module '{operation.task}' was learned on another category module "
                    f"'{operation.category}' than the net holds now; learn it again"
                )
            new = TaskSpec(name=operation.task)
            return _knowing(founded, (*plan.tasks, new)).with_task(operation.task, task)


def _knowing(tree: NetTree, tasks: tuple[TaskSpec, ...]) -> NetTree:
    """Add the tasks that the net does not know by name: the plan may have grown since."""
    names = {task.name for task in tree.tasks}
    new = {task.name: task for task in reversed(tasks) if task.name not in names}
    known = (*tree.tasks, *reversed(new.values()))
    return NetTree.model_validate({**dict(tree), "tasks": known})


def _with_category(tree: NetTree, name: str, module: ModuleRef) -> NetTree:
    """Add a category module unless an earlier operation of the same submission did."""
    if tree.category_modules.get(name) == module:
        return tree
    return tree.with_category(name, module)


def _founded(tree: NetTree | None) -> NetTree:
    if tree is None:
        raise ConflictError("the net is not founded yet; found it with the first submission")
    return tree
