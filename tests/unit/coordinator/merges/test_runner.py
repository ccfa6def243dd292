"""An operator's word on merges: reviews, rejections, versions rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.common.errors import ConflictError
from rootstock.coordinator.config import AcceptanceRule
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.merges.commit import Committer
from rootstock.coordinator.net.verify import verify_version
from rootstock.coordinator.registry import Decision, Merge, MergeState, SubmissionState
from rootstock.coordinator.service.messages import watch_response
from tests.support.coordinator_context import receive, teacher
from tests.support.merges import SITE_KEY, evaluating, merge_runner, reconcile, report, with_policy


def carry(
    context: CoordinatorContext, merge: Merge, meanwhile: Callable[[Merge], None], state: MergeState
) -> Merge:
    """Carry a merge; once it is in `state`, do what happens meanwhile."""

    async def both() -> None:
        carried = asyncio.create_task(merge_runner(context).carry(merge.id))
        while (found := context.registry.merges.get(merge.id)).state is not state:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not carried.done()
        await asyncio.to_thread(meanwhile, found)
        await carried

    asyncio.run(asyncio.wait_for(both(), 20))
    return context.registry.merges.get(merge.id)


def word(context: CoordinatorContext, decision: Decision, reason: str) -> Callable[[Merge], None]:
    def say(merge: Merge) -> None:
        context.registry.merges.decide(merge.id, decision, reason)

    return say


def test_what_breaks_the_rule_waits_and_is_merged_by_the_operators_word(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    asked = with_policy(context, review="failing")  # the only candidate is 38% off
    ended = carry(asked, merge, word(context, "approve", "the only cow lab"), MergeState.REVIEWING)
    assert (ended.state, ended.net_version, ended.reason) == (MergeState.MERGED, 2, "")
    view = context.net
    assert view.commit(2).merge["approved"] == "the only cow lab"
    assert verify_version(view, 2, context.key.public_key) == []


def test_what_the_operator_rejects_leaves_no_version(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    asked = with_policy(context, review="always", max_error=100.0, max_above_teacher=100.0)
    ended = carry(asked, merge, word(context, "reject", "wrong labels"), MergeState.REVIEWING)
    assert ended.state is MergeState.REJECTED
    assert ended.reason == "rejected by the operator: wrong labels"
    head = context.head()
    assert head is not None
    assert head.number == 1


def test_a_review_is_taken_up_after_a_restart(context: CoordinatorContext, tmp_path: Path) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    context.registry.merges.advance(merge.id, MergeState.REVIEWING, reason="policy")
    context.registry.merges.decide(merge.id, "approve", "fine")
    # The policy of the next start asks for no review; the word counts all the same.
    asyncio.run(merge_runner(context).carry(merge.id))
    assert context.registry.merges.get(merge.id).state is MergeState.MERGED


def test_a_merge_whose_lab_has_vanished_can_be_rejected(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    ended = carry(context, merge, word(context, "reject", "lab is gone"), MergeState.EVALUATING)
    assert (ended.state, ended.reason) == (
        MergeState.REJECTED,
        "rejected by the operator: lab is gone",
    )


def test_a_task_has_a_rule_of_its_own(context: CoordinatorContext, tmp_path: Path) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    rule = AcceptanceRule(max_error=60.0, max_above_teacher=60.0)
    asyncio.run(merge_runner(with_policy(context, tasks={"classification": rule})).carry(merge.id))
    assert context.registry.merges.get(merge.id).state is MergeState.MERGED


def test_a_founder_worse_than_the_rule_founds_nothing(context: CoordinatorContext) -> None:
    submission = receive(context, teacher(context, "cat-lab", "cat"), SITE_KEY)  # has 5%
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    merge = context.registry.merges.create(submission, "cat", "classification", OperationKind.FOUND)
    asyncio.run(merge_runner(with_policy(context, max_error=4.0)).carry(merge.id))
    ended = context.registry.merges.get(merge.id)
    assert ended.state is MergeState.REJECTED
    assert "5.0%; at most 4.0% may be merged" in ended.reason
    assert context.head() is None


def test_a_version_rolled_back_stays_on_record_and_the_net_grows_on(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    asyncio.run(merge_runner(generous).carry(merge.id))
    committer = Committer(generous)
    with pytest.raises(ConflictError, match="version 2 stands on it"):
        asyncio.run(committer.roll_back(1, "no", and_later=False))
    asyncio.run(committer.roll_back(2, "wrong labels", and_later=False))
    tree = context.tree()
    assert tree is not None
    assert set(tree.category_modules) == {"cat"}
    (event,) = [
        watch_response(event).merge
        for event in context.registry.events.after("dog-lab", 0, 100)
        if event.kind == "merge"
    ]
    assert (event.state, event.reason) == (
        "rolled_back",
        "rolled back by the operator: wrong labels",
    )
    # The same lab ships another teacher of the category: version 3 stands on version 1.
    again = teacher(context, "dog-lab", "dog").model_copy(update={"software": {"try": "2"}})
    submission = receive(context, again, SITE_KEY)
    context.registry.submissions.set_state(submission, SubmissionState.ADMITTED)
    second = context.registry.merges.create(
        submission, "dog", "classification", OperationKind.NEW_CATEGORY
    )
    for state in (MergeState.DISTILLING, MergeState.EVALUATING):
        second = context.registry.merges.advance(
            second.id, state, job_result=merge.job_result, numbers=MergeNumbers(teacher_error=5.0)
        )

    async def carried() -> None:
        task = asyncio.create_task(merge_runner(generous).carry(second.id))
        while context.registry.evaluations.of_merge(second.id) is None:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(report, context, second)
        await task

    asyncio.run(asyncio.wait_for(carried(), 20))
    view = context.net
    assert view.head == 3
    assert view.commit(3).parent == view.commit(1).content_digest()
    for number in (1, 2, 3):
        assert verify_version(view, number, context.key.public_key) == []


def test_an_adapter_for_a_task_module_that_is_gone_joins_no_other(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    merge = evaluating(context, tmp_path)
    report(context, merge)
    assert merge.job_result is not None
    changed = {**merge.job_result, "student_task_module": "a" * 64}
    context.registry.merges.update(merge.id, job_result=changed)
    generous = with_policy(context, max_error=100.0, max_above_teacher=100.0)
    asyncio.run(merge_runner(generous).carry(merge.id))
    ended = context.registry.merges.get(merge.id)
    assert ended.state is MergeState.FAILED
    assert "rolled back in the meantime" in ended.reason


def test_what_honest_labs_shipped_joins_again_once_a_bad_founder_is_rolled_back(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """The stranger's g serves nobody: dog's merge fails by it, cow's stands on it."""
    bad = evaluating(context, tmp_path)  # cat founds; dog, the owner of `bad`, is asked about it
    registry = context.registry
    context.end(bad, "dog-lab", MergeState.REJECTED, "acceptance: an error of 50.0%")
    rejected = receive(context, teacher(context, "cow-lab", "cow"), SITE_KEY)
    registry.submissions.set_state(rejected, SubmissionState.ADMITTED)
    unwanted = registry.merges.create(rejected, "cow", "classification", OperationKind.NEW_CATEGORY)
    registry.merges.decide(unwanted.id, "reject", "no cows")
    asyncio.run(merge_runner(context).carry(unwanted.id))
    assert registry.submissions.undecided() == []
    asyncio.run(Committer(context).roll_back(1, "its g serves nobody", and_later=True))
    assert [each.site for each in registry.submissions.undecided()] == ["dog-lab"]
    # The reconciler founds the net with it, and looks neither at the stranger nor at the cow.
    reconcile(context, until=lambda: context.head() is not None)
    tree = context.tree()
    assert tree is not None
    assert set(tree.category_modules) == {"dog"}
    again = registry.merges.of_submission(bad.submission_id)
    assert [(merge.state, merge.void) for merge in again] == [
        (MergeState.REJECTED, True),
        (MergeState.MERGED, False),
    ]
    # The same operation is queued a second time where there is another net to join.
    asyncio.run(Committer(context).roll_back(2, "not wanted either", and_later=True))
    assert registry.submissions.undecided() == []


@pytest.mark.parametrize("waits_for", [MergeState.EVALUATING, MergeState.REVIEWING])
def test_a_merge_that_is_open_at_the_roll_back_ends_and_its_submission_joins_again(
    context: CoordinatorContext, tmp_path: Path, waits_for: MergeState
) -> None:
    merge = evaluating(context, tmp_path)
    registry = context.registry
    careful = with_policy(context, review="always")
    if waits_for is MergeState.REVIEWING:
        report(context, merge)

    async def roll_back() -> None:
        carrying = asyncio.create_task(merge_runner(careful).carry(merge.id))
        async with asyncio.timeout(60):
            while registry.merges.get(merge.id).state is not waits_for:
                await asyncio.sleep(0.01)
            await Committer(context).roll_back(1, "no", and_later=True)
            await carrying

    asyncio.run(roll_back())
    ended = registry.merges.get(merge.id)
    assert (ended.state, ended.void) == (MergeState.FAILED, True)
    assert "rolled back by the operator in the meantime" in ended.reason
    assert [each.site for each in registry.submissions.undecided()] == ["dog-lab"]
    last = watch_response(registry.events.after("dog-lab", 0, 100)[-1])
    assert (last.merge.merge_id, last.merge.state) == (merge.id, "failed")


def test_nothing_of_the_lab_whose_version_was_named_joins_again(
    context: CoordinatorContext, tmp_path: Path
) -> None:
    """Its second submission would found the net again."""
    merge = evaluating(context, tmp_path)  # cat-lab founds
    registry = context.registry
    again = receive(context, teacher(context, "cat-lab", "lion"), SITE_KEY)
    registry.submissions.set_state(again, SubmissionState.ADMITTED)
    lion = registry.merges.create(again, "lion", "classification", OperationKind.NEW_CATEGORY)
    asyncio.run(Committer(context).roll_back(1, "no", and_later=True))
    assert registry.merges.get(lion.id).state is MergeState.FAILED
    assert registry.merges.get(merge.id).void
    assert [each.site for each in registry.submissions.undecided()] == ["dog-lab"]
