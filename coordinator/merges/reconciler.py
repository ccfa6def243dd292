"""The conductor: carries submissions and merges on from whatever state it finds them in.

All state is in the registry. After a crash the conductor reads it and goes on: admission and
decisions are repeated (they are pure), a job resumes from its checkpoint, an evaluation that was
asked for is waited for, a commit either happened or is made now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import structlog

from rootstock.common.errors import RefusedError, RootstockError
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import TeacherManifest
from rootstock.coordinator.context import CoordinatorContext, plain
from rootstock.coordinator.growth.operations import (
    Operation,
    OperationKind,
    Refusal,
    Underway,
    decide,
)
from rootstock.coordinator.merges.result import of_labs
from rootstock.coordinator.merges.runner import MergeRunner
from rootstock.coordinator.paths import samples_area
from rootstock.coordinator.plan.heads import HeadsFile, heads_of_net, publish
from rootstock.coordinator.registry import OPEN_MERGES, Change, Submission, SubmissionState
from rootstock.coordinator.registry.documents import SubmissionChanged

Work = Callable[[], Awaitable[None]]


class Logger(Protocol):
    """Logs ended merges: see `rootstock.coordinator.history.recorder.Recorder`."""

    async def log_all(self) -> None:
        """Log every ended merge that the history has not seen."""
        ...


class Reconciler:
    """Drives every open submission and merge.

    Parameters
    ----------
    context
        What the coordinator holds: registry, store, plan, signing key.
    transplanter
        Carries one merge to its end.
    recorder
        Logs the ended ones to the history.
    heads
        The auxiliary heads that are published.
    retry_seconds
        Pause before what failed for want of a disk or a peer is tried again.
    """

    def __init__(
        self,
        context: CoordinatorContext,
        transplanter: MergeRunner,
        recorder: Logger,
        heads: HeadsFile,
        retry_seconds: float,
    ) -> None:
        self._heads = heads
        self._context = context
        self._transplanter = transplanter
        self._recorder = recorder
        self._retry_seconds = retry_seconds
        self._news = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._log = structlog.get_logger("conductor")

    async def run(self) -> None:
        """Work until cancelled; wakes at every commit in the registry."""
        loop = asyncio.get_running_loop()

        def wake(_: Change) -> None:
            loop.call_soon_threadsafe(self._news.set)

        unsubscribe = self._context.registry.subscribe(wake)
        try:
            while True:
                self._news.clear()
                self._raise_faults()
                for name, work in (await asyncio.to_thread(self._due)).items():
                    self._keep_going(name, work)
                await self._news.wait()
        finally:
            unsubscribe()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _due(self) -> dict[str, Work]:
        """Return the work that the states in the registry call for, by name."""
        registry = self._context.registry
        due: dict[str, Work] = {
            merge.id: partial(self._transplanter.carry, merge.id)
            for merge in registry.merges.all(*OPEN_MERGES)
            if self._transplanter.ready(merge)
        }
        if self._received() or self._undecided():
            due["submissions"] = self._take_in
        if self._heads_due():
            due["heads"] = self._publish_heads
        if registry.merges.unlogged():
            due["history"] = self._recorder.log_all
        return due

    def _keep_going(self, name: str, work: Work) -> None:
        """Start work under a name unless it is going on already."""
        if name in self._tasks:  # one that has ended is looked at by `_raise_faults` first
            return
        task = asyncio.create_task(self._patiently(name, work), name=name)
        # What arose for this name while the task was at its last step is found by another look.
        task.add_done_callback(lambda _: self._news.set())
        self._tasks[name] = task

    async def _patiently(self, name: str, work: Work) -> None:
        """Do work; what fails for want of a disk, a peer or MLflow is tried again."""
        try:
            await work()
        except RootstockError as error:
            self._log.warning("waits", work=name, seconds=self._retry_seconds, error=str(error))
            await asyncio.sleep(self._retry_seconds)

    def _raise_faults(self) -> None:
        """Raise a fault of ours rather than lose it with its task."""
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                task.result()

    async def _take_in(self) -> None:
        """Admit or refuse what was received, then decide about what was admitted."""
        await self._admit_received()
        while undecided := await asyncio.to_thread(self._undecided):
            await asyncio.to_thread(self._decide, undecided[0])

    async def _admit_received(self) -> None:
        registry = self._context.registry
        for submission in await asyncio.to_thread(self._received):
            state, reason = SubmissionState.ADMITTED, ""
            try:
                await asyncio.to_thread(self._check, submission)
            except RefusedError as error:
                state, reason = SubmissionState.REFUSED, plain(str(error))
            await asyncio.to_thread(
                registry.submissions.set_state,
                submission.id,
                state,
                reason,
                events=[
                    SubmissionChanged(
                        submission_id=submission.id,
                        manifest_digest=submission.manifest_digest,
                        state=state,
                        reason=reason,
                    ).to(submission.site)
                ],
            )
            if state is SubmissionState.REFUSED:  # nothing will ever learn from its samples
                await asyncio.to_thread(self._context.store.drop, samples_area(submission.id))
            self._log.info("submission", id=submission.id, state=state, reason=reason)

    def _check(self, submission: Submission) -> None:
        """Put one submission through the gate, and ask growth whether the net has room for it.

        Raises
        ------
        RefusedError
            Which check it failed, with the value and the rule.
        """
        manifest = self._context.teacher(submission)
        admit(manifest, self._context.plan, self._context.path_of(submission))
        operations = self._operations(manifest)
        if isinstance(operations, Refusal):
            raise RefusedError(operations.reason)
        if manifest.shared_samples is not None:
            self._log.info(
                "shared samples", site=submission.site, count=manifest.shared_samples.count
            )

    def _operations(self, manifest: TeacherManifest) -> list[Operation] | Refusal:
        context = self._context
        merges = context.registry.merges.all(*OPEN_MERGES)
        underway = Underway(
            joins=frozenset((merge.category, merge.task) for merge in merges),
            tasks=frozenset(merge.task for merge in merges if merge.operation.brings_task),
        )
        return decide(context.tree(), manifest, context.plan, underway, context.owner)

    def _heads_due(self) -> bool:
        """Say whether the founding net's task modules are to be published as heads, and are there.

        Never again once heads were published: the operator may have retired them.
        """
        context = self._context
        if context.config.plan.heads != "founder" or self._heads.last() is not None:
            return False
        tree = context.tree()
        return tree is not None and all(
            task.name in tree.task_modules for task in context.plan.tasks
        )

    async def _publish_heads(self) -> None:
        await asyncio.to_thread(self._publish_heads_of_head)

    def _publish_heads_of_head(self) -> None:
        context = self._context
        head = context.head()
        assert head is not None  # noqa: S101  # `_heads_due` has looked; versions only grow
        modules = heads_of_net(context.tree_of(head), context.plan)
        heads = publish(self._heads, context.registry, f"net version {head.number}", modules)
        self._log.info("heads", number=heads.number, origin=heads.origin)

    def _received(self) -> list[Submission]:
        return of_labs(self._context.registry.submissions.all(SubmissionState.RECEIVED))

    def _undecided(self) -> list[Submission]:
        """Return admitted submissions without merges; none while the net is being founded.

        What the others call for is known when there is a net to join.
        """
        registry = self._context.registry
        if any(
            merge.operation is OperationKind.FOUND for merge in registry.merges.all(*OPEN_MERGES)
        ):
            return []
        return of_labs(registry.submissions.undecided())

    def _decide(self, submission: Submission) -> None:
        """Queue the merges that an admitted submission calls for."""
        context = self._context
        manifest = context.teacher(submission)
        operations = self._operations(manifest)
        if isinstance(operations, Refusal):
            # Another lab's teacher of this category came first since this one was admitted.
            context.fail_all(submission, operations.reason)
            return
        context.registry.merges.queue(
            submission.id,
            operations,
            released=context.config.growth.automatic,
        )
