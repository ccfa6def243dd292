"""Queues what the operator learned as merges; the reconciler commits them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.nets.graph import ModuleRef, NetTree
from rootstock.common.protocol import receipt_bytes
from rootstock.common.weights.manifest import BlobEntry, Recipe, TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.learning.found import waiting_categories
from rootstock.coordinator.merges.result import COORDINATOR, LearnedTask, OperatorJoin
from rootstock.coordinator.registry import OPEN_MERGES, Merge, Receipt, SubmissionState


def queue_task(
    context: CoordinatorContext, task: str, learned: LearnedTask, source: str | None
) -> list[Merge]:
    """Sign a learned task module as a submission of the coordinator's, and queue its joins.

    Parameters
    ----------
    context
        The coordinator's.
    task, learned
        The new task; its blobs are in the store.
    source
        The task whose module was fine-tuned, or None.

    Returns
    -------
    A merge for each join, in their order.

    Raises
    ------
    ConflictError
        If such a task is on its way, or a category has left the net.
    NotFoundError
        If a blob is not in the store.
    """
    if any(merge.task == task for merge in context.registry.merges.all(*OPEN_MERGES)):
        raise ConflictError(f"a task '{task}' is being merged already; wait for its end")
    tree = _tree(context)
    _require_stored(context, learned.blob, learned.joins.values())
    first, *others = learned.joins
    module = _module(tree, first)
    origins = {category: _submission_of(context, tree, category) for category in others}
    origins[first] = _submit(context, _manifest(context, task, learned, module, source))
    return [
        _queue(context, origins[category], category, task, operation, learned.joins[category])
        for category, operation in [
            (first, OperationKind.LEARN_TASK),
            *((each, OperationKind.CONNECT) for each in others),
        ]
    ]


def found_with(context: CoordinatorContext, merge_id: str, learned: LearnedTask) -> Merge:
    """Sign a learned task module, and let the merge that founds the net go ahead with it.

    Parameters
    ----------
    context
        The coordinator's.
    merge_id
        The held merge: see `rootstock.coordinator.learning.found.founding_merge`.
    learned
        Its blobs are in the store.

    Raises
    ------
    ConflictError
        If the merge went ahead in the meantime.
    NotFoundError
        If there is no such merge, its category is not among the joins, or a blob is not there.
    """
    merge = context.registry.merges.get(merge_id)
    if merge.category not in learned.joins:
        raise NotFoundError(
            f"merge {merge_id} founds the net with '{merge.category}', and nothing was learned for "
            f"it; there are: {', '.join(learned.joins)}"
        )
    waiting = waiting_categories(context.registry, merge, context.plan)
    _require_stored(context, learned.blob, learned.joins.values())
    manifest = _manifest(context, merge.task, learned, _module(waiting, merge.category), None)
    _submit(context, manifest)
    join = learned.joins[merge.category].model_copy(
        update={"submission": manifest.content_digest()}
    )
    return context.registry.merges.release_with(merge.id, join.model_dump(mode="json"))


def queue_connection(
    context: CoordinatorContext, category: str, task: str, join: OperatorJoin
) -> Merge:
    """Queue a further join of a category and a task that the net holds."""
    tree = _tree(context)
    _require_stored(context, None, [join])
    origin = _submission_of(context, tree, category)
    return _queue(context, origin, category, task, OperationKind.CONNECT, join)


def _queue(
    context: CoordinatorContext,
    submission: str,
    category: str,
    task: str,
    operation: OperationKind,
    join: OperatorJoin,
) -> Merge:
    merge = context.registry.merges.create(
        submission, category, task, operation, job_result=join.model_dump(mode="json")
    )
    if merge.state not in OPEN_MERGES:
        raise ConflictError(
            f"{category} and {task} were joined by merge {merge.id} before, which is "
            f"'{merge.state}'; a join that was taken back is not made again"
        )
    return merge


def _manifest(
    context: CoordinatorContext,
    task: str,
    learned: LearnedTask,
    module: ModuleRef,
    source: str | None,
) -> TeacherManifest:
    """Return what the coordinator says of a task module that was learned above `module`."""
    first = next(iter(learned.joins))
    join = learned.joins[first]
    return TeacherManifest(
        site=COORDINATOR,
        category=first,
        architecture=module.architecture,
        category_module=module.blob,
        task_modules={task: learned.blob},
        metrics={
            f"error/{task}": join.error,
            "samples/training": float(join.learned_from),
            "samples/validation": float(join.judged_on),
        },
        recipe=Recipe(
            name="fine-tune" if source else "task-on-frozen",
            settings={"categories": " ".join(learned.joins), "source": source or ""},
        ),
        plan=context.plan.content_digest(),
    )


def _submit(context: CoordinatorContext, manifest: TeacherManifest) -> str:
    """Bring a manifest of the coordinator's own to `admitted`; return its submission's id."""
    registry, document = context.registry, manifest.canonical()
    registry.sites.join(COORDINATOR, context.key.public_key)
    digest = context.store.put_bytes(document)
    upload = registry.uploads.begin(manifest, document, context.key.sign(document), open_limit=1)
    received_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    signature = context.key.sign(receipt_bytes(digest, upload.id, received_at))
    registry.uploads.receive(upload.id, Receipt(digest, upload.id, received_at, signature))
    if registry.submissions.get(upload.id).state is SubmissionState.RECEIVED:
        registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
    return upload.id


def _tree(context: CoordinatorContext) -> NetTree:
    tree = context.tree()
    if tree is None:
        raise ConflictError("the net is not founded (any more): there is nothing to join")
    return tree


def _module(tree: NetTree, category: str) -> ModuleRef:
    module = tree.category_modules.get(category)
    if module is None:
        raise ConflictError(
            f"there is no category module '{category}' (any more); there are: "
            f"{', '.join(sorted(tree.category_modules))}"
        )
    return module


def _submission_of(context: CoordinatorContext, tree: NetTree, category: str) -> str:
    digest = _module(tree, category).submission
    upload = context.registry.uploads.find(digest)
    if upload is None:
        raise ConflictError(f"the submission {digest} of category '{category}' is not on record")
    return upload.id


def _require_stored(
    context: CoordinatorContext, blob: BlobEntry | None, joins: Iterable[OperatorJoin]
) -> None:
    adapters = [join.adapter.blob for join in joins if join.adapter is not None]
    for entry in [*([] if blob is None else [blob]), *adapters]:
        if not context.store.renew(entry.digest):
            raise NotFoundError(
                f"the store has no blob {entry.digest}; give `artifacts` the same value here and "
                "where the coordinator runs, and learn again"
            )
