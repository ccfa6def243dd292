"""The operator's commands that change one coordinator's state.

The service calls this; so does a command that works instead of a coordinator that is down.

What the operator learned is signed by the coordinator as a submission of its own, under the site
name "coordinator" that no lab may take, and queued as merges; the reconciler commits them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rootstock.common.artifacts.gc import Collection
from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.identity.keys import key_id
from rootstock.common.nets.graph import ModuleRef, NetTree
from rootstock.common.protocol import Heads
from rootstock.common.provenance.statements import sign_manifest
from rootstock.common.weights.manifest import BlobEntry, Recipe, TeacherManifest
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.garbage.collector import Collector
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.learning.founding import waiting_categories
from rootstock.coordinator.merges.result import LearnedTask, OperatorJoin
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan import heads
from rootstock.coordinator.registry import COORDINATOR, OPEN_MERGES, SubmissionState


class Operations:
    """Changes that an operator asks for. Every blob that is named must be in the store already."""

    def __init__(self, context: CoordinatorContext) -> None:
        self._context = context
        self._registry = context.registry
        self._heads = heads.HeadsFile(StatePaths(context.config).heads)

    def learn_task(self, task: str, learned: LearnedTask, source: str | None) -> list[str]:
        """Queue the joins of a learned task module; return the merges' ids, in their order.

        `source` is the task whose module was fine-tuned, if any. ConflictError if such a task is on
        its way, or a category has left the net; NotFoundError if a blob is not in the store.
        """
        if any(merge.task == task for merge in self._registry.merges.all(*OPEN_MERGES)):
            raise ConflictError(f"a task '{task}' is being merged already; wait for its end")
        tree = self._tree()
        self._require_stored(learned.joins.values(), learned.blob)
        first, *others = learned.joins
        manifest = self._manifest(task, learned, _module(tree, first), source)
        origins = {category: self._submission_of(tree, category) for category in others}
        origins[first] = self._submit(manifest)
        return [
            self._queue(
                origins[category],
                category,
                task,
                OperationKind.LEARN_TASK if category == first else OperationKind.CONNECT,
                join,
            )
            for category, join in learned.joins.items()
        ]

    def found_net(self, merge_id: str, learned: LearnedTask) -> None:
        """Let the merge that `founding_merge` returned found the net on a learned task module.

        ConflictError if it went ahead in the meantime; NotFoundError if there is no such merge, its
        category is not among the joins, or a blob is missing.
        """
        context, merge = self._context, self._registry.merges.get(merge_id)
        if merge.category not in learned.joins:
            raise NotFoundError(
                f"merge {merge_id} founds the net with '{merge.category}', and nothing was learned "
                f"for it; there are: {', '.join(learned.joins)}"
            )
        waiting = waiting_categories(self._registry, merge, context.plan)
        self._require_stored(learned.joins.values(), learned.blob)
        manifest = self._manifest(merge.task, learned, _module(waiting, merge.category), None)
        self._submit(manifest)
        join = learned.joins[merge.category].model_copy(
            update={"submission": manifest.content_digest()}
        )
        self._registry.merges.release_with(merge.id, join.model_dump(mode="json"))

    def connect(self, category: str, task: str, join: OperatorJoin) -> str:
        """Queue a further join of a category and a task of the net; return the merge's id."""
        origin = self._submission_of(self._tree(), category)
        self._require_stored([join])
        return self._queue(origin, category, task, OperationKind.CONNECT, join)

    def publish_heads(
        self, origin: str, task_modules: Mapping[str, BlobEntry], rotation: BlobEntry | None
    ) -> Heads:
        """Publish auxiliary heads in place of those there are."""
        return heads.publish(self._heads, self._registry, origin, dict(task_modules), rotation)

    def retire_heads(self, reason: str) -> Heads:
        """Take the published heads back; return them."""
        return heads.retire(self._heads, self._registry, reason)

    def collect_garbage(self) -> Collection:
        """Delete the blobs that nothing needs any more; return what was there."""
        return Collector(self._context, self._heads.current).collect_now()

    def _queue(
        self,
        submission: str,
        category: str,
        task: str,
        operation: OperationKind,
        join: OperatorJoin,
    ) -> str:
        merge = self._registry.merges.create(
            submission, category, task, operation, job_result=join.model_dump(mode="json")
        )
        if merge.state not in OPEN_MERGES:
            raise ConflictError(
                f"{category} and {task} were joined by merge {merge.id} before, which is "
                f"'{merge.state}'; a join that was taken back is not made again"
            )
        return merge.id

    def _manifest(
        self, task: str, learned: LearnedTask, module: ModuleRef, source: str | None
    ) -> TeacherManifest:
        """Describe a task module that was learned above `module`, the first join's category."""
        category, join = next(iter(learned.joins.items()))
        return TeacherManifest(
            site=COORDINATOR,
            category=category,
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
            plan=self._context.plan.content_digest(),
        )

    def _submit(self, manifest: TeacherManifest) -> str:
        """Make an admitted submission of the coordinator's own manifest; return its id."""
        context, registry, document = self._context, self._registry, manifest.canonical()
        registry.sites.join(COORDINATOR, context.key.public_key)
        digest = context.store.put_bytes(document)
        net = key_id(context.key.public_key)
        signature = sign_manifest(context.key, document, net)
        upload = registry.uploads.begin(manifest, document, signature, open_limit=1)
        registry.uploads.receive(upload.id, context.receipt(digest, upload.id))
        if registry.submissions.get(upload.id).state is SubmissionState.RECEIVED:
            registry.submissions.set_state(upload.id, SubmissionState.ADMITTED)
        return upload.id

    def _tree(self) -> NetTree:
        tree = self._context.tree()
        if tree is None:
            raise ConflictError("the net is not founded (any more): there is nothing to join")
        return tree

    def _submission_of(self, tree: NetTree, category: str) -> str:
        digest = _module(tree, category).submission
        upload = self._registry.uploads.find(digest)
        if upload is None:
            raise ConflictError(
                f"the submission {digest} of category '{category}' is not on record"
            )
        return upload.id

    def _require_stored(self, joins: Iterable[OperatorJoin], *blobs: BlobEntry) -> None:
        adapters = (join.adapter.blob for join in joins if join.adapter is not None)
        for blob in (*blobs, *adapters):
            if not self._context.store.renew(blob.digest):
                raise NotFoundError(
                    f"the store has no blob {blob.digest}; give `artifacts` the same value here "
                    "and where the coordinator runs, and learn again"
                )


def _module(tree: NetTree, category: str) -> ModuleRef:
    module = tree.category_modules.get(category)
    if module is None:
        raise ConflictError(
            f"there is no category module '{category}' (any more); there are: "
            f"{', '.join(sorted(tree.category_modules))}"
        )
    return module
