"""The reconciler: carries submissions and merges on from whatever state it finds them in.

All state is in the registry. After a crash the reconciler reads it and goes on: admission and
decisions are repeated (they are pure), a job resumes from its checkpoint, an evaluation that was
asked for is waited for, a commit either happened or is made now. Each submission and each merge is
a piece of work of its own: what goes wrong with one costs no other, and never the service.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from rootstock.common.errors import RefusedError, RootstockError
from rootstock.common.failpoints import failpoint
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.context import CoordinatorContext, reason_text
from rootstock.coordinator.growth.operations import OperationKind, Refusal
from rootstock.coordinator.growth.readiness import OpenMerge, ready
from rootstock.coordinator.merges.result import of_labs
from rootstock.coordinator.merges.revoked import check_revoked
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.plan.heads import HeadsFile, heads_of_net, publish
from rootstock.coordinator.registry import MergeState, Submission, SubmissionState
from rootstock.coordinator.registry.documents import SubmissionChanged
from rootstock.coordinator.registry.wait import RESYNC_SECONDS, setting, woken

ATTEMPTS = 3
"""How often work is tried in which the coordinator itself is at fault, before it is ended."""

HOLD_SECONDS = 30.0
"""How long decisions wait for one submission's admission, so that those that came together are
decided about in their order."""

MAX_PAUSE_SECONDS = 60.0
"""Longest pause before work that failed is tried again."""


@dataclass(frozen=True)
class Work:
    """What the states in the registry call for."""

    run: Callable[[], Awaitable[None]]
    give_up: Callable[[str], None] | None = None
    """Ends it for good, with the reason; without it, it is tried for ever."""


class Reconciler:
    """Drives every open submission and merge.

    Parameters
    ----------
    context
        The coordinator's.
    runner
        Carries one merge to its end.
    heads
        The auxiliary heads that are published.
    retry_seconds
        Pause before what failed for want of a disk or a peer is tried again.
    """

    def __init__(
        self,
        context: CoordinatorContext,
        runner: MergeRunner,
        heads: HeadsFile,
        retry_seconds: float,
    ) -> None:
        self._heads = heads
        self._context = context
        self._runner = runner
        self._retry_seconds = retry_seconds
        self._news = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._faults: dict[str, int] = {}
        """How often each piece of work has failed since it last went well."""
        self._received: dict[str, float] = {}
        """When each submission was first seen that is not admitted yet."""
        self._publishes_heads = context.config.plan.heads == "founder"
        self._deciding = asyncio.Lock()
        """Submissions are admitted and decided about one by one: each counts on the ones before."""
        self._log = structlog.get_logger("reconciler")

    async def run(self) -> None:
        """Work until cancelled; wakes when a submission or a merge changes."""
        try:
            with setting(self._news, self._context.registry, lambda change: bool(change.ids)):
                while True:
                    self._news.clear()
                    await self._supervise("scan", Work(self._scan))
                    await woken(self._news, HOLD_SECONDS if self._received else RESYNC_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _scan(self) -> None:
        """Start what the registry calls for and what is not going on already."""
        # What ends during the look may still be in it; its end has asked for another look.
        going = set(self._tasks)
        for name, work in (await asyncio.to_thread(self._due)).items():
            if name not in going:
                task = asyncio.create_task(self._supervise(name, work), name=name)
                self._tasks[name] = task
                task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, _: asyncio.Task[None]) -> None:
        del self._tasks[name]
        # What arose for this name while its task was at the last step is found by another look.
        self._news.set()

    def _due(self) -> dict[str, Work]:
        """Return the work that the states in the registry call for, by name."""
        context, registry = self._context, self._context.registry
        merges, tree = registry.merges.open(), context.tree()
        tasks = () if tree is None else tree.task_modules
        due: dict[str, Work] = {
            merge_id: Work(partial(self._runner.carry, merge_id), partial(self._fail, merge_id))
            for merge_id in ready(merges, tasks, context.config.jobs.max_per_site)
        }
        received = of_labs(registry.submissions.all(SubmissionState.RECEIVED))
        for submission in received:
            due[f"admit {submission.id}"] = Work(
                partial(self._admit, submission), partial(self._refuse, submission)
            )
        # What submissions call for is known when all are admitted and there is a net to join. One
        # whose admission has failed, or takes long, is not waited for.
        now = time.monotonic()
        self._received = {each.id: self._received.get(each.id, now) for each in received}
        settled = all(
            f"admit {each.id}" in self._faults or now > self._received[each.id] + HOLD_SECONDS
            for each in received
        )
        if settled and not _founding(merges):
            for submission in of_labs(registry.submissions.undecided()):
                name = f"decide {submission.id}"
                due[name] = Work(
                    partial(self._decide, submission), partial(context.fail_all, submission)
                )
                if name not in self._faults:  # the next one counts on what this one adds
                    break
        if self._publishes_heads and all(task.name in tasks for task in context.plan.tasks):
            due["heads"] = Work(partial(asyncio.to_thread, self._publish_heads))
        return due

    async def _supervise(self, name: str, work: Work) -> None:
        """Do work; what fails is logged and tried again, and ended when that cannot help."""
        try:
            await work.run()
        except RootstockError as error:  # for want of a disk or a peer: waiting may mend it
            pause = pause_after(0, self._retry_seconds)
            self._faults.setdefault(name, 0)
            self._log.warning("work.retried", work=name, seconds=pause, error=str(error))
        except Exception as error:  # noqa: BLE001  # a supervisor: the log has the traceback
            faults = self._faults[name] = self._faults.get(name, 0) + 1
            self._log.exception("work.failed", work=name, attempt=faults)
            if faults >= ATTEMPTS and work.give_up is not None:
                try:
                    await asyncio.to_thread(work.give_up, _reason(error))
                    del self._faults[name]
                    return
                except Exception:  # noqa: BLE001
                    self._log.exception("work.parked", work=name)
            pause = pause_after(faults, self._retry_seconds)
        else:
            self._faults.pop(name, None)
            return
        await asyncio.sleep(pause)
        self._news.set()

    def _fail(self, merge_id: str, reason: str) -> None:
        registry = self._context.registry
        merge = registry.merges.get(merge_id)
        site = registry.submissions.get(merge.submission_id).site
        self._context.end(merge, site, MergeState.FAILED, reason)

    async def _admit(self, submission: Submission) -> None:
        """Admit a received submission, or refuse it: the gate, the probe, room in the net."""
        refusal = await asyncio.to_thread(self._refusal, submission)
        if refusal is None:
            refusal = await self._runner.probe(submission)
        async with self._deciding:
            failpoint("submission.checked")
            if refusal is None:
                refusal = await asyncio.to_thread(self._no_room, submission)
            if refusal is None:
                await asyncio.to_thread(self._set_state, submission, SubmissionState.ADMITTED)
            else:
                await asyncio.to_thread(self._refuse, submission, refusal)

    def _refuse(self, submission: Submission, reason: str) -> None:
        self._set_state(submission, SubmissionState.REFUSED, reason_text(reason))
        # Nothing will ever learn from its samples.
        self._context.store.drop(samples_area(submission.id))

    def _set_state(self, submission: Submission, state: SubmissionState, reason: str = "") -> None:
        changed = SubmissionChanged(
            submission_id=submission.id,
            manifest_digest=submission.manifest_digest,
            state=state,
            reason=reason,
        )
        self._context.registry.submissions.set_state(
            submission.id, state, reason, events=[changed.to(submission.site)]
        )
        self._log.info(f"submission.{state}", submission=submission.id, reason=reason)

    def _refusal(self, submission: Submission) -> str | None:
        """Put one submission through the gate.

        Returns the check that it fails, with the value and the rule; None if it passes.
        """
        try:
            manifest = self._context.teacher(submission)
            check_revoked(manifest, submission.manifest, self._context.config.admission.revoked)
            admit(manifest, self._context.plan, self._context.path_of(submission))
        except RefusedError as error:
            return str(error)
        return self._copied(submission, manifest)

    def _copied(self, submission: Submission, manifest: TeacherManifest) -> str | None:
        """Refuse another lab's category module; whose it is, is for the operator alone.

        The plan's start is everybody's.
        """
        context, digest = self._context, manifest.category_module.digest
        if digest == context.plan.initial_category_module.digest:
            return None
        owner = context.registry.uploads.first_with(digest)
        if owner in (None, submission.site):
            return None
        self._log.warning(
            "submission.copied", submission=submission.id, site=submission.site, of=owner
        )
        return (
            f"copy: the category module {digest} has been shipped by another lab before; train one "
            "here and ship that: another training.seed makes another module"
        )

    def _no_room(self, submission: Submission) -> str | None:
        """Ask growth whether the net has room; return why not."""
        manifest = self._context.teacher(submission)
        operations = self._context.operations(manifest)
        if isinstance(operations, Refusal):
            return operations.reason
        if manifest.shared_samples is not None:
            self._log.info(
                "submission.shares_samples",
                submission=submission.id,
                site=submission.site,
                count=manifest.shared_samples.count,
            )
        return None

    def _publish_heads(self) -> None:
        """Publish the founding net's task modules as heads.

        Never again once heads were published: the operator may have retired them.
        """
        context, head = self._context, self._context.head()
        if self._heads.last() is None and head is not None:
            modules = heads_of_net(context.net.tree_of(head), context.plan)
            heads = publish(self._heads, context.registry, f"net version {head.number}", modules)
            self._log.info("heads.published", number=heads.number, origin=heads.origin)
        self._publishes_heads = False

    async def _decide(self, submission: Submission) -> None:
        async with self._deciding:
            await asyncio.to_thread(self._queue, submission)

    def _queue(self, submission: Submission) -> None:
        """Queue the merges that an admitted submission calls for."""
        context = self._context
        if _founding(context.registry.merges.open()):
            return
        manifest = context.teacher(submission)
        try:
            # It may have been revoked since it was admitted, and come again after a roll-back.
            check_revoked(manifest, submission.manifest, context.config.admission.revoked)
        except RefusedError as error:
            context.fail_all(submission, str(error))
            return
        operations = context.operations(manifest)
        if isinstance(operations, Refusal):
            # Another lab's teacher of this category came first since this one was admitted.
            context.fail_all(submission, operations.reason)
            return
        context.registry.merges.queue(
            submission.id,
            operations,
            released=context.config.growth.automatic,
        )
        failpoint("merge.queued")


def pause_after(faults: int, retry_seconds: float) -> float:
    """Return how many seconds work waits for its next try: doubled with each fault, capped."""
    doublings = min(faults, 32)  # 2.0 ** 1024 is no float
    return min(retry_seconds * 2.0**doublings, MAX_PAUSE_SECONDS)


def _founding(merges: Iterable[OpenMerge]) -> bool:
    return any(merge.operation.kind is OperationKind.FOUND for merge in merges)


def _reason(error: Exception) -> str:
    """Return what a lab is told about a fault; the traceback is the log's."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"a fault of the coordinator, {type(error).__name__}: {error} "
        f"({Path(at.filename).name}:{at.lineno}), {ATTEMPTS} times; its log has the traceback. "
        "Have the operator report it, and ship the teacher net again when it is mended"
    )
