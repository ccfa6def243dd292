"""Queue what the operator learned as merges; a coordinator that runs commits them."""

from __future__ import annotations

from datetime import UTC, datetime

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import ConflictError
from rootstock.common.identity.keys import SigningKey
from rootstock.common.nets.graph import NetTree
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import Recipe, TeacherManifest
from rootstock.coordinator.growth import Connect, LearnTask
from rootstock.coordinator.learning.learn import LearnedTask
from rootstock.coordinator.merges.result import COORDINATOR, OperatorJoin
from rootstock.coordinator.registry import OPEN_MERGES, Merge, Receipt, Registry, SubmissionState


def queue_task(
    registry: Registry,
    store: BlobStore,
    key: SigningKey,
    plan: Plan,
    tree: NetTree,
    name: str,
    learned: LearnedTask,
    source: str | None,
) -> list[Merge]:
    """Sign a learned task module as a submission of the coordinator's, and queue its joins.

    Parameters
    ----------
    registry, store, key, plan
        The coordinator's.
    tree
        The net version that it was learned on.
    name, learned
        Of the new task.
    source
        The task whose module was fine-tuned, or None.

    Raises
    ------
    ConflictError
        If a lab has the coordinator's name, or such a task is on its way.
    """
    if any(merge.task == name for merge in registry.merges.all(*OPEN_MERGES)):
        raise ConflictError(f"a task '{name}' is being merged already; wait for its end")
    first, *others = learned.joins
    join = learned.joins[first]
    manifest = _manifest(plan, tree, name, learned, source)
    submission = _submit(registry, store, key, manifest)
    joins = [(submission, first, LearnTask.name, join)]
    joins += [
        (_submission_of(registry, tree, category), category, Connect.name, learned.joins[category])
        for category in others
    ]
    return [
        _queue(registry, origin, category, name, operation, found)
        for origin, category, operation, found in joins
    ]


def found_with(
    registry: Registry,
    store: BlobStore,
    key: SigningKey,
    plan: Plan,
    merge: Merge,
    tree: NetTree,
    learned: LearnedTask,
) -> Merge:
    """Sign a learned task module, and let the merge that founds the net go ahead with it.

    Parameters
    ----------
    registry, store, key, plan
        The coordinator's.
    merge
        Held: see `rootstock.coordinator.learning.found.founding_merge`.
    tree
        The category modules that wait.
    learned
        The founding category's join comes first.

    Raises
    ------
    ConflictError
        If a lab has the coordinator's name, or the merge went ahead in the meantime.
    """
    manifest = _manifest(plan, tree, merge.task, learned, None)
    _submit(registry, store, key, manifest)
    digest = manifest.content_digest()
    join = learned.joins[merge.category].model_copy(update={"submission": digest})
    return registry.merges.release_with(merge.id, join.model_dump(mode="json"))


def queue_connection(
    registry: Registry, tree: NetTree, category: str, task: str, join: OperatorJoin
) -> Merge:
    """Queue a further join of what the net holds."""
    origin = _submission_of(registry, tree, category)
    return _queue(registry, origin, category, task, Connect.name, join)


def _queue(
    registry: Registry,
    submission: str,
    category: str,
    task: str,
    operation: str,
    join: OperatorJoin,
) -> Merge:
    merge = registry.merges.create(
        submission, category, task, operation, job_result=join.model_dump(mode="json")
    )
    if merge.state not in OPEN_MERGES:
        raise ConflictError(
            f"{category} and {task} were joined by merge {merge.id} before, which is "
            f"'{merge.state}'; a join that was taken back is not made again"
        )
    return merge


def _manifest(
    plan: Plan, tree: NetTree, name: str, learned: LearnedTask, source: str | None
) -> TeacherManifest:
    """Return what the coordinator says of a task module that it learned."""
    first = next(iter(learned.joins))
    module, join = tree.category_modules[first], learned.joins[first]
    return TeacherManifest(
        site=COORDINATOR,
        category=first,
        architecture=module.architecture,
        category_module=module.blob,
        task_modules={name: learned.blob},
        metrics={
            f"error/{name}": join.error,
            "samples/training": float(join.learned_from),
            "samples/validation": float(join.judged_on),
        },
        recipe=Recipe(
            name="fine-tune" if source else "task-on-frozen",
            settings={"categories": " ".join(learned.joins), "source": source or ""},
        ),
        plan=plan.content_digest(),
    )


def _submit(
    registry: Registry, store: BlobStore, key: SigningKey, manifest: TeacherManifest
) -> str:
    """Bring a manifest of the coordinator's own to `admitted`; return its submission's id."""
    document = manifest.canonical()
    registry.sites.join(COORDINATOR, key.public_key)
    digest = store.put_bytes(document)
    upload = registry.uploads.begin(manifest, document, key.sign(document), open_limit=1)
    received_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    signature = key.sign(f"{digest} {upload.id} {received_at}".encode())
    registry.uploads.receive(upload.id, Receipt(digest, upload.id, received_at, signature))
    if registry.submissions.get(upload.id).state is SubmissionState.RECEIVED:
        registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
    return upload.id


def _submission_of(registry: Registry, tree: NetTree, category: str) -> str:
    digest = tree.category_modules[category].submission
    upload = registry.uploads.find(digest)
    if upload is None:
        raise ConflictError(f"the submission {digest} of category '{category}' is not on record")
    return upload.id
