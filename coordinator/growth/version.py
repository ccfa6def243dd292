"""The next net version's tree: one more join. Pure."""

from __future__ import annotations

from rootstock.common.errors import ConflictError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import TaskSpec
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import AdapterEntry, Digest, TeacherManifest
from rootstock.coordinator.growth.operations import Operation, OperationKind


def grown(
    tree: NetTree | None,
    operation: Operation,
    manifest: TeacherManifest,
    plan: Plan,
    *,
    manifest_digest: Digest,
    adapter: AdapterEntry | None = None,
    calibration: Calibration = Calibration(),  # noqa: B008  # frozen
    error: float | None = None,
    learned: ModuleRef | None = None,
) -> NetTree:
    """Return the tree that an operation leads to: one more join, and the modules that it needs.

    The manifest is of the submission that the modules came with; `adapter`, `calibration` and
    `error` (percent, calibrated) are the accepted candidate's. `learned` is the task module that
    founds the net, where it was learned on several labs' category modules; None adopts the
    submission's. ConflictError if the net has changed so that the operation does not fit any more;
    NotFoundError if a new category's task, or a new task's category, is not in the net.
    """
    category = category_ref(manifest, manifest_digest)
    if operation.kind is OperationKind.FOUND:
        if tree is not None:
            raise ConflictError(
                "the net was founded by another submission in the meantime; decide again"
            )
        tree = NetTree(architecture=plan.architecture, tasks=plan.tasks)
    elif tree is None:
        raise ConflictError("the net is not founded yet; found it with the first submission")
    present = tree.category_modules.get(operation.category)
    match operation.kind:
        case OperationKind.FOUND | OperationKind.NEW_CATEGORY:
            if present != category:  # an earlier operation of the same submission may have added it
                tree = tree.with_category(operation.category, category)
        case OperationKind.NEW_TASK:
            if present not in (None, category):
                raise ConflictError(
                    f"the net's category module '{operation.category}' came with another "
                    "submission, which this task module was not trained with; ship the teacher "
                    "under another category name"
                )
            tree = _with_names(tree, plan.tasks)
        case OperationKind.LEARN_TASK:
            if present is None or present.blob != manifest.category_module:
                raise ConflictError(
                    f"the task module '{operation.task}' was learned on another category module "
                    f"'{operation.category}' than the net's now; learn it again"
                )
            tree = _with_names(tree, (*plan.tasks, TaskSpec(name=operation.task)))
    if operation.kind.adds_task:
        module = learned or task_ref(manifest, operation.task, manifest_digest)
        tree = tree.with_task(operation.task, module)
    return tree.with_edge(
        Edge(
            category=operation.category,
            task=operation.task,
            adapter=adapter,
            calibration=calibration,
            error=error,
        )
    )


def category_ref(manifest: TeacherManifest, manifest_digest: Digest) -> ModuleRef:
    """Return a tree's reference to the category module of a submission."""
    return ModuleRef(
        blob=manifest.category_module,
        architecture=manifest.architecture,
        submission=manifest_digest,
    )


def task_ref(manifest: TeacherManifest, task: str, manifest_digest: Digest) -> ModuleRef:
    """Return a tree's reference to a task module of a submission."""
    return ModuleRef(
        blob=manifest.task_modules[task],
        architecture=manifest.architecture.above(),
        submission=manifest_digest,
    )


def _with_names(tree: NetTree, tasks: tuple[TaskSpec, ...]) -> NetTree:
    """Add the tasks that the net does not know by name: the plan may have grown since."""
    names = {task.name for task in tree.tasks}
    new = {task.name: task for task in reversed(tasks) if task.name not in names}
    known = (*tree.tasks, *reversed(new.values()))
    return NetTree.model_validate({**dict(tree), "tasks": known})
