from __future__ import annotations

from collections.abc import Callable

import pytest

from rootstock.common.errors import ConflictError, NotFoundError
from rootstock.common.protocol import evaluation_id
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import Operation, OperationKind
from rootstock.coordinator.registry import OPEN_MERGES, Merge, MergeState, NewEvent, Registry
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest, news_of
from tests.support.named_blobs import ARCHITECTURE, adapter, blob
from tests.support.registry_uploads import Clock


def test_creation_is_idempotent(registry: Registry, admitted: Callable[[str], str]) -> None:
    submission = admitted("cat")
    first = registry.merges.create(submission, "cat", "classification", OperationKind.NEW_CATEGORY)
    again = registry.merges.create(submission, "cat", "classification", OperationKind.NEW_CATEGORY)
    assert first == again
    assert first.id == "mrg-0001"
    other = registry.merges.create(submission, "cat", "counting", OperationKind.NEW_CATEGORY)
    assert other.id == "mrg-0002"
    assert [first.id, other.id] == [merge.id for merge in registry.merges.all(MergeState.QUEUED)]


def test_a_submission_is_decided_about_as_a_whole(
    registry: Registry, admitted: Callable[[str], str]
) -> None:
    cat, dog = admitted("cat"), admitted("dog")
    assert [cat, dog] == [row.id for row in registry.submissions.undecided()]
    wanted = [
        Operation(OperationKind.NEW_CATEGORY, "cat", "classification"),
        Operation(OperationKind.NEW_TASK, "cat", "counting"),
    ]
    queued = registry.merges.queue(cat, wanted)
    assert wanted == [Operation(each.operation, each.category, each.task) for each in queued]
    assert [dog] == [row.id for row in registry.submissions.undecided()]
    assert queued == registry.merges.queue(cat, wanted)
    registry.merges.advance(queued[0].id, MergeState.FAILED)
    assert [dog] == [row.id for row in registry.submissions.undecided()]


def test_steps_keep_times_fields_and_events_together(
    registry: Registry, admitted: Callable[[str], str], clock: Clock
) -> None:
    merge = registry.merges.create(
        admitted("cat"), "cat", "classification", OperationKind.NEW_CATEGORY
    )
    assert (merge.started_at, merge.numbers, merge.step) == (None, MergeNumbers(), 0)
    clock.now += 5
    event = NewEvent("cat-lab", "merge", b"distilling")
    merge = registry.merges.advance(
        merge.id,
        MergeState.DISTILLING,
        events=[event],
        steps=300,
        numbers=MergeNumbers(teacher_error=5.0),
    )
    assert (clock.now, None) == (merge.started_at, merge.finished_at)
    registry.merges.update(
        merge.id, step=50, numbers=MergeNumbers.from_flat({"zero_sample_error": 30.0})
    )
    merge = registry.merges.get(merge.id)
    assert (merge.step, merge.steps) == (50, 300)
    assert merge.numbers.flat() == {"teacher_error": 5.0, "zero_sample_error": 30.0}
    result = {"adapters": {"zero_sample": "0" * 64}, "loss": [1.0, 0.5], "none": None}
    registry.merges.advance(merge.id, MergeState.EVALUATING, job_result=result)
    assert result == registry.merges.get(merge.id).job_result
    clock.now += 7
    merge = registry.merges.advance(merge.id, MergeState.REJECTED, reason="too far off")
    assert ("too far off", clock.now) == (merge.reason, merge.finished_at)
    assert registry.merges.all(*OPEN_MERGES) == []
    assert [e.payload for e in registry.events.after("cat-lab", 0, 10)] == [b"distilling"]


def test_an_illegal_step_changes_nothing(
    registry: Registry, admitted: Callable[[str], str]
) -> None:
    merge = registry.merges.create(
        admitted("cat"), "cat", "classification", OperationKind.NEW_CATEGORY
    )
    with pytest.raises(ConflictError, match="'queued' and cannot become 'evaluating'"):
        registry.merges.advance(
            merge.id,
            MergeState.EVALUATING,
            reason="no",
            events=[NewEvent("cat-lab", "merge", b"")],
        )
    assert merge == registry.merges.get(merge.id)
    assert registry.events.last_cursor() == 0


def test_history_is_told_once(registry: Registry, evaluating: Callable[[str], Merge]) -> None:
    merge = evaluating("cat")
    assert registry.merges.unlogged() == []
    registry.merges.advance(merge.id, MergeState.FAILED, reason="singular")
    assert [merge.id] == registry.merges.unlogged()
    registry.merges.update(merge.id, logged=True)
    assert registry.merges.unlogged() == []


def test_a_rollback_is_news_to_the_history(
    registry: Registry, evaluating: Callable[[str], Merge]
) -> None:
    merge = evaluating("cat")
    registry.versions.commit(1, "a" * 64, "b" * 64, None, merge.id)
    registry.merges.update(merge.id, logged=True)
    assert registry.merges.unlogged() == []
    ended = registry.merges.get(merge.id).finished_at
    registry.merges.advance(merge.id, MergeState.ROLLED_BACK)
    assert [merge.id] == registry.merges.unlogged()
    assert ended == registry.merges.get(merge.id).finished_at


def test_one_evaluation_a_merge_and_its_first_report_stays(
    registry: Registry, evaluating: Callable[[str], Merge]
) -> None:
    merge = evaluating("cat")
    assert registry.evaluations.of_merge(merge.id) is None
    request = EvaluationRequest(
        evaluation_id=evaluation_id(merge.id),
        merge_id=merge.id,
        manifest_digest="0" * 64,
        task="classification",
        architecture=ARCHITECTURE,
        task_module=blob("g"),
        candidates={Candidate.ZERO_SAMPLE: adapter("h"), Candidate.NO_ADAPTER: None},
    )
    asked = registry.evaluations.request("cat-lab", request)
    assert asked.id == "evl-0001"
    assert asked.request == request
    assert list(asked.request.candidates) == [Candidate.NO_ADAPTER, Candidate.ZERO_SAMPLE]
    other = request.model_copy(update={"task": "counting"})
    again = registry.evaluations.request("cat-lab", other)
    assert asked == again == registry.evaluations.of_merge(merge.id)
    (event,) = registry.events.after("cat-lab", 0, 10)
    assert news_of(event) == request
    report = EvaluationReport(evaluation_id=asked.id, failure="no images")
    assert registry.evaluations.report(asked.id, report)
    assert not registry.evaluations.report(asked.id, report.model_copy(update={"failure": ""}))
    assert registry.evaluations.get(asked.id).report == report
    with pytest.raises(NotFoundError, match="evl-0009"):
        registry.evaluations.report("evl-0009", report)


def test_commits_are_serial_and_bring_their_merge_along(
    registry: Registry, evaluating: Callable[[str], Merge]
) -> None:
    cat, dog = evaluating("cat"), evaluating("dog")
    assert registry.versions.head() is None
    news = NewEvent(None, "version", b"1")
    first = registry.versions.commit(
        1, "a" * 64, "b" * 64, None, cat.id, events=[news], candidate=Candidate.REFINED
    )
    assert first == registry.versions.head() == registry.versions.get(1)
    merged = registry.merges.get(cat.id)
    assert (merged.state, merged.net_version, merged.candidate) == (MergeState.MERGED, 1, "refined")
    assert merged.finished_at is not None
    for number, parent in ((1, None), (2, None), (3, 1), (3, 2)):
        with pytest.raises(ConflictError, match="the head is 1 and the next number 2"):
            registry.versions.commit(
                number,
                "c" * 64,
                "d" * 64,
                parent,
                dog.id,
                events=[news],
                candidate=Candidate.REFINED,
            )
    # The lost race left no trace: the merge can be committed on the new head.
    assert dog == registry.merges.get(dog.id)
    assert len(registry.events.after("dog-lab", 0, 10)) == 1
    registry.versions.commit(2, "c" * 64, "d" * 64, 1, dog.id)
    assert [version.number for version in registry.versions.all()] == [1, 2]
    assert registry.merges.get(dog.id).parent_version == 1
    with pytest.raises(NotFoundError, match="no net version 3; the head is 2"):
        registry.versions.get(3)


def test_only_an_evaluated_merge_is_committed(
    registry: Registry, admitted: Callable[[str], str]
) -> None:
    merge = registry.merges.create(
        admitted("cat"), "cat", "classification", OperationKind.NEW_CATEGORY
    )
    with pytest.raises(ConflictError, match="'queued' and cannot become 'merged'"):
        registry.versions.commit(1, "a" * 64, "b" * 64, None, merge.id)
    assert registry.versions.head() is None
    founding = registry.merges.create(
        merge.submission_id, "cat", "classification", OperationKind.FOUND
    )
    registry.versions.commit(1, "a" * 64, "b" * 64, None, founding.id)
    assert MergeState.MERGED is registry.merges.get(founding.id).state


@pytest.fixture
def three(registry: Registry, evaluating: Callable[[str], Merge]) -> Registry:
    """Three versions on one line, by three categories."""
    for name in ("cow-lab", "sheep-lab"):
        registry.sites.join(name, name.encode().ljust(32))
    for number, category in enumerate(("cat", "dog", "cow"), start=1):
        parent = None if number == 1 else number - 1
        digest, tree = str(number) * 64, str(number + 3) * 64
        registry.versions.commit(number, digest, tree, parent, evaluating(category).id)
    return registry


def test_the_head_is_rolled_back_to_its_parent(three: Registry) -> None:
    told: list[str] = []

    def events(merges: list[Merge]) -> list[NewEvent]:
        told.extend(merge.category for merge in merges)
        return [NewEvent("cat-lab", "merge", b"back")]

    (taken,) = three.versions.roll_back(3, "wrong labels", events=events)
    assert (taken.number, taken.parent) == (3, 2)
    assert taken.rolled_back_at is not None
    assert told == ["cow"]
    assert [event.payload for event in three.events.after("cat-lab", 0, 10)] == [b"back"]
    head = three.versions.head()
    assert head is not None
    assert head.number == 2
    merge = three.merges.get(taken.merge_id)
    assert (merge.state, merge.reason) == (MergeState.ROLLED_BACK, "wrong labels")
    # History is told of it, and the version stays on record with its number.
    assert three.merges.unlogged()[-1] == merge.id
    assert [row.number for row in three.versions.all()] == [1, 2, 3]


def test_a_number_is_never_used_twice(three: Registry, evaluating: Callable[[str], Merge]) -> None:
    three.versions.roll_back(3, "wrong labels")
    merge = evaluating("sheep")
    assert three.versions.next_number() == 4
    with pytest.raises(ConflictError, match="the head is 2 and the next number 4"):
        three.versions.commit(3, "e" * 64, "f" * 64, 2, merge.id)
    assert three.versions.commit(4, "e" * 64, "f" * 64, 2, merge.id).parent == 2
    # What was rolled back is not on the new head's line.
    with pytest.raises(ConflictError, match="version 3 was rolled back before; the head is 4"):
        three.versions.roll_back(3, "again")


def test_what_others_stand_on_is_rolled_back_only_with_them(three: Registry) -> None:
    with pytest.raises(ConflictError, match=r"2 cannot be rolled back alone: version 3 stands on"):
        three.versions.roll_back(2, "wrong labels")
    assert [merge.state for merge in three.merges.all()] == [MergeState.MERGED] * 3
    with pytest.raises(NotFoundError, match="no net version 7; the head is 3"):
        three.versions.roll_back(7, "wrong labels")
    taken = three.versions.roll_back(1, "wrong labels", and_later=True)
    assert [version.number for version in taken] == [3, 2, 1]
    assert three.versions.head() is None
    assert three.versions.next_number() == 4


def test_an_operators_word_is_kept_once(
    registry: Registry, evaluating: Callable[[str], Merge]
) -> None:
    merge = evaluating("cat")
    with pytest.raises(ConflictError, match="is 'evaluating'; it can be approved once"):
        registry.merges.decide(merge.id, "approve", "looks good")
    registry.merges.advance(merge.id, MergeState.REVIEWING)
    kept = registry.merges.decide(merge.id, "approve", "looks good")
    assert (kept.decision, kept.decision_reason) == ("approve", "looks good")
    registry.merges.decide(merge.id, "approve", "looks good")
    with pytest.raises(ConflictError, match=r"'approve' was said before \(looks good\)"):
        registry.merges.decide(merge.id, "reject", "no")
    registry.merges.advance(merge.id, MergeState.REJECTED)
    with pytest.raises(ConflictError, match="has ended: it is 'rejected'"):
        registry.merges.decide(merge.id, "reject", "no")
    with pytest.raises(NotFoundError, match="mrg-9999"):
        registry.merges.decide("mrg-9999", "reject", "no")


def test_any_open_merge_can_be_rejected(registry: Registry, admitted: Callable[[str], str]) -> None:
    merge = registry.merges.create(
        admitted("cat"), "cat", "classification", OperationKind.NEW_CATEGORY
    )
    assert registry.merges.decide(merge.id, "reject", "not ours").state is MergeState.QUEUED
