"""A commit wakes whom it concerns: its cost does not grow with the merges that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from rootstock.common.errors import StorageError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.merges.reconciler import Reconciler
from rootstock.coordinator.paths import StatePaths
from rootstock.coordinator.plan.heads import HeadsFile
from rootstock.coordinator.registry import Change, MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport
from tests.support.coordinator_context import open_context, receive, teacher
from tests.support.merges import evaluating, merge_runner, report

STATEMENTS_TO_END_A_MERGE = 100
"""One look by each of the 100 merges that wait would be twice as many: BEGIN and SELECT."""


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the SQL that is executed, in any thread."""
    executed: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        executed.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def waiting(context: CoordinatorContext, folder: Path, count: int) -> list[str]:
    """Bring merges to where each waits for its lab; return their ids."""
    first = evaluating(context, folder)
    asked = context.registry.evaluations.of_merge(first.id)
    assert asked is not None
    ids = [first.id]
    for number in range(1, count):
        site = f"lab-{number}"
        submission = receive(context, teacher(context, site, f"cow-{number}"))
        context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
        merge = context.registry.merges.create(
            submission, f"cow-{number}", "classification", OperationKind.NEW_CATEGORY
        )
        context.registry.merges.advance(merge.id, MergeState.DISTILLING)
        context.registry.merges.advance(
            merge.id, MergeState.EVALUATING, job_result=first.job_result
        )
        ids.append(merge.id)
    return ids


def test_a_commit_costs_what_it_changes(tmp_path: Path) -> None:
    with open_context(tmp_path) as context:
        registry = context.registry
        ids = waiting(context, tmp_path, 100)
        receiving = receive(context, teacher(context, "new-lab", "horse"))
        registry.submissions.set_state(receiving, SubmissionState.REFUSED)
        reconciler = Reconciler(
            context,
            merge_runner(context),
            HeadsFile(StatePaths(context.config).heads),
            1.0,
        )

        async def settled(executed: list[str]) -> None:
            """Wait until nothing has been executed for a while."""
            while True:
                before = len(executed)
                await asyncio.sleep(0.3)
                if len(executed) == before:
                    return

        async def count(change: Callable[[], object]) -> int:
            """Return how many statements follow a change, without its own."""
            with statements() as executed:
                await asyncio.to_thread(change)
                own = len(executed)
                await settled(executed)
                return len(executed) - own

        async def run() -> None:
            work = asyncio.create_task(reconciler.run())
            with statements() as executed:
                await settled(executed)
            assert len(registry.evaluations.of_merges(ids)) == len(ids)
            assert await count(lambda: registry.uploads.touch(receiving)) == 0
            assert await count(lambda: registry.merges.progress(ids[0], 1, 2)) == 0
            failed = EvaluationReport(evaluation_id="evl-0003", failure="the disk is full")
            ended = await count(lambda: registry.evaluations.report("evl-0003", failed))
            assert 0 < ended < STATEMENTS_TO_END_A_MERGE
            assert registry.merges.get("mrg-0003").state is MergeState.FAILED
            work.cancel()
            await asyncio.wait({work})

        asyncio.run(run())


@pytest.mark.parametrize("released", [True, False])
def test_a_change_names_the_merge_and_the_submission(
    context: CoordinatorContext, released: bool
) -> None:
    registry = context.registry
    heard: list[Change] = []
    registry.subscribe(heard.append)
    cat = receive(context, teacher(context, "cat-lab", "cat"))
    assert heard.pop().ids == {cat}
    registry.submissions.set_state(cat, SubmissionState.ADMITTED)
    assert heard.pop().ids == {cat}
    merge = registry.merges.create(
        cat, "cat", "classification", OperationKind.FOUND, released=released
    )
    assert heard.pop().ids == {merge.id}
    registry.merges.release()
    assert heard.pop().ids == (set() if released else {merge.id})
    registry.merges.decide(merge.id, "reject", "no")
    assert heard.pop().ids == {merge.id}
    registry.uploads.touch(cat)
    registry.merges.progress(merge.id, 1, 2)
    assert {*heard.pop().ids, *heard.pop().ids} == set()
    assert registry.merges.get(merge.id).step == 1


def test_a_commit_whose_answer_was_lost_wakes_all_the_same(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """The database has it, the writer hears of an error, and its second try changes nothing."""
    merge = evaluating(context, tmp_path)

    def lose_the_answer(_: Session) -> None:
        event.remove(Session, "after_commit", lose_the_answer)
        raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    async def run() -> None:
        carried = asyncio.create_task(merge_runner(context).carry(merge.id))
        await asyncio.sleep(0.5)
        event.listen(Session, "after_commit", lose_the_answer)
        with pytest.raises(StorageError):
            await asyncio.to_thread(report, context, merge)
        await asyncio.to_thread(report, context, merge)
        await asyncio.wait_for(carried, 10)

    asyncio.run(run())
