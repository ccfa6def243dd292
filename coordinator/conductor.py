"""The conductor: carries submissions and merges on from whatever state it finds them in.

All state is in the registry. After a crash the conductor reads it and goes on: admission and
decisions are repeated (they are pure), a job resumes from its checkpoint, an evaluation that was
asked for is waited for, a commit either happened or is made now.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import structlog

from common.errors import RefusedError, RootstockError
from common.weights.admission import admit
from coordinator.growth import Found, Refusal, decide
from coordinator.ledger import Ledger, submission_event
from coordinator.recording import Recorder
from coordinator.registry import (
    OPEN_MERGES,
    Change,
    MergeState,
    Submission,
    SubmissionState,
)
from coordinator.transplant import Transplanter


class Conductor:
    """Drives every open submission and merge.

    Parameters
    ----------
    ledger
        What the coordinator holds: registry, store, plan, signing key.
    transplanter
        Carries one merge to its end.
    recorder
        Logs the ended ones to the history.
    retry_seconds
        Pause before what failed for want of a disk or a peer is tried again.
    """

    def __init__(
        self,
        ledger: Ledger,
        transplanter: Transplanter,
        recorder: Recorder,
        retry_seconds: float,
    ) -> None:
        self._ledger = ledger
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

        unsubscribe = self._ledger.registry.subscribe(wake)
        try:
            while True:
                self._news.clear()
                self._raise_faults()
                await self._admit_received()
                await self._decide_admitted()
                for merge_id in await asyncio.to_thread(self._ready_merges):
                    self._keep_going(merge_id, self._transplanter.carry(merge_id))
                if await asyncio.to_thread(self._ledger.registry.merges.unlogged):
                    self._keep_going("history", self._recorder.log_all())
                await self._news.wait()
        finally:
            unsubscribe()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _keep_going(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start work under a name unless it is going on already."""
        running = self._tasks.get(name)
        if running is not None and not running.done():
            work.close()
            return
        task = asyncio.create_task(self._patiently(name, work), name=name)
        # What arose for this name while the task was at its last step is found by another look.
        task.add_done_callback(lambda _: self._news.set())
        self._tasks[name] = task

    def _ready_merges(self) -> list[str]:
        """Return the open merges that can be carried on now."""
        merges = self._ledger.registry.merges.all(*OPEN_MERGES)
        return [merge.id for merge in merges if self._transplanter.ready(merge)]

    async def _patiently(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do work; what fails for want of a disk, a peer or MLflow is tried again."""
        try:
            await work
        except RootstockError as error:
            self._log.warning("waits", work=name, seconds=self._retry_seconds, error=str(error))
            await asyncio.sleep(self._retry_seconds)

    def _raise_faults(self) -> None:
        """Raise a fault of ours rather than lose it with its task."""
        for name, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[name]
                task.result()

    async def _admit_received(self) -> None:
        registry = self._ledger.registry
        for submission in await asyncio.to_thread(
            registry.submissions.all, SubmissionState.RECEIVED
        ):
            state, reason = SubmissionState.ADMITTED, ""
            try:
                await asyncio.to_thread(self._check, submission)
            except RefusedError as error:
                state, reason = SubmissionState.REFUSED, str(error)
            await asyncio.to_thread(
                registry.submissions.set_state,
                submission.id,
                state,
                reason,
                events=[submission_event(submission, state, reason)],
            )
            self._log.info("submission", id=submission.id, state=state, reason=reason)

    def _check(self, submission: Submission) -> None:
        """Put one submission through the gate, and ask growth whether the net has room for it.

        Raises
        ------
        RefusedError
            Which check it failed, with the value and the rule.
        """
        manifest = self._ledger.teacher(submission)
        admit(manifest, self._ledger.plan, self._ledger.store.local_path)
        operations = decide(self._ledger.tree(), manifest, self._ledger.plan, self._open())
        if isinstance(operations, Refusal):
            raise RefusedError(operations.reason)
        if manifest.shared_samples is not None:
            self._log.info(
                "shared samples", site=submission.site, count=manifest.shared_samples.count
            )

    def _open(self) -> frozenset[tuple[str, str]]:
        """Return the category × task pairs that admitted submissions are about to fill."""
        merges = self._ledger.registry.merges.all(*OPEN_MERGES)
        return frozenset((merge.category, merge.task) for merge in merges)

    async def _decide_admitted(self) -> None:
        """Queue the merges that admitted submissions call for; found the net with the first."""
        registry = self._ledger.registry
        for merge in await asyncio.to_thread(registry.merges.all, MergeState.QUEUED):
            if merge.operation == Found.name:
                await self._transplanter.carry(merge.id)
        queued = Counter(m.submission_id for m in await asyncio.to_thread(registry.merges.all))
        admitted = await asyncio.to_thread(registry.submissions.all, SubmissionState.ADMITTED)
        for submission in admitted:
            manifest = self._ledger.teacher(submission)
            if queued[submission.id] >= len(manifest.task_modules):
                continue
            operations = decide(self._ledger.tree(), manifest, self._ledger.plan, frozenset())
            if isinstance(operations, Refusal):
                # Another lab's teacher of this category was merged since this one was admitted.
                await asyncio.to_thread(self._ledger.fail_all, submission, operations.reason)
                continue
            # The one that the others follow is queued last: after a crash in between, the decision
            # is still the same.
            for operation in reversed(operations):
                merge = await asyncio.to_thread(
                    registry.merges.create,
                    submission.id,
                    operation.category,
                    operation.task,
                    operation.name,
                )
                if isinstance(operation, Found):
                    # Nothing else can be decided before there is a net to join.
                    await self._transplanter.carry(merge.id)
