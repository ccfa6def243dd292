from __future__ import annotations

import pytest

from common.errors import ConflictError, NotFoundError
from coordinator.registry import OPEN_MERGES, MergeState, NewEvent, evaluation_id


def test_creation_is_idempotent(registry, admitted):
    submission = admitted("cat")
    event = NewEvent("cat-lab", "merge", b"queued")
    first = registry.merges.create(
        submission, "cat", "classification", "new-category", events=[event]
    )
    again = registry.merges.create(
        submission, "cat", "classification", "new-category", events=[event]
    )
    assert first == again
    assert first.id == "mrg-0001"
    assert len(registry.events.after("cat-lab", 0, 10)) == 1
    other = registry.merges.create(submission, "cat", "counting", "new-category")
    assert other.id == "mrg-0002"
    assert [first.id, other.id] == [merge.id for merge in registry.merges.all(MergeState.QUEUED)]


def test_a_submission_is_decided_about_as_a_whole(registry, admitted):
    cat, dog = admitted("cat"), admitted("dog")
    assert [cat, dog] == [row.id for row in registry.submissions.undecided()]
    wanted = [("cat", "classification", "new-category"), ("cat", "counting", "new-task")]
    queued = registry.merges.queue(cat, wanted)
    assert wanted == [(merge.category, merge.task, merge.operation) for merge in queued]
    assert [dog] == [row.id for row in registry.submissions.undecided()]
    assert queued == registry.merges.queue(cat, wanted)
    registry.merges.advance(queued[0].id, MergeState.FAILED)
    assert [dog] == [row.id for row in registry.submissions.undecided()]


def test_steps_keep_times_fields_and_events_together(registry, admitted, clock):
    merge = registry.merges.create(admitted("cat"), "cat", "classification", "new-category")
    assert (merge.started_at, merge.numbers, merge.step) == (None, {}, 0)
    clock.now += 5
    event = NewEvent("cat-lab", "merge", b"distilling")
    merge = registry.merges.advance(
        merge.id, MergeState.DISTILLING, events=[event], steps=300, numbers={"teacher_error": 5.0}
    )
    assert (clock.now, None) == (merge.started_at, merge.finished_at)
    registry.merges.update(merge.id, step=50, numbers={"zero_sample_error": 30.0})
    merge = registry.merges.get(merge.id)
    assert (merge.step, merge.steps) == (50, 300)
    assert merge.numbers == {"teacher_error": 5.0, "zero_sample_error": 30.0}
    result = {"adapters": {"zero_sample": "0" * 64}, "loss": [1.0, 0.5], "none": None}
    registry.merges.advance(merge.id, MergeState.EVALUATING, job_result=result)
    assert result == registry.merges.get(merge.id).job_result
    clock.now += 7
    merge = registry.merges.advance(merge.id, MergeState.REJECTED, reason="too far off")
    assert ("too far off", clock.now) == (merge.reason, merge.finished_at)
    assert registry.merges.all(*OPEN_MERGES) == []
    assert [e.payload for e in registry.events.after("cat-lab", 0, 10)] == [b"distilling"]


def test_an_illegal_step_changes_nothing(registry, admitted):
    merge = registry.merges.create(admitted("cat"), "cat", "classification", "new-category")
    with pytest.raises(ConflictError, match="'queued' and cannot become 'evaluating'"):
        registry.merges.advance(
            merge.id,
            MergeState.EVALUATING,
            reason="no",
            events=[NewEvent("cat-lab", "merge", b"")],
        )
    assert merge == registry.merges.get(merge.id)
    assert registry.events.last_cursor() == 0


def test_history_is_told_once(registry, evaluating):
    merge = evaluating("cat")
    assert registry.merges.unlogged() == []
    registry.merges.advance(merge.id, MergeState.FAILED, reason="singular")
    assert [merge.id] == [row.id for row in registry.merges.unlogged()]
    registry.merges.update(merge.id, logged=True, mlflow_run_id="run")
    assert registry.merges.unlogged() == []


def test_a_rollback_is_news_to_the_history(registry, evaluating):
    merge = evaluating("cat")
    registry.versions.commit(1, "a" * 64, "b" * 64, None, merge.id)
    registry.merges.update(merge.id, logged=True)
    assert registry.merges.unlogged() == []
    ended = registry.merges.get(merge.id).finished_at
    registry.merges.advance(merge.id, MergeState.ROLLED_BACK)
    assert [merge.id] == [found.id for found in registry.merges.unlogged()]
    assert ended == registry.merges.get(merge.id).finished_at


def test_one_evaluation_a_merge_and_its_first_report_stays(registry, evaluating):
    merge = evaluating("cat")
    assert registry.evaluations.of_merge(merge.id) is None
    event = NewEvent("cat-lab", "evaluation", b"request")
    asked = registry.evaluations.request(merge.id, "cat-lab", b"request", events=[event])
    assert evaluation_id(merge.id) == asked.id == "evl-0001"
    again = registry.evaluations.request(merge.id, "cat-lab", b"another", events=[event])
    assert asked == again == registry.evaluations.of_merge(merge.id)
    assert len(registry.events.after("cat-lab", 0, 10)) == 1
    assert registry.evaluations.report(asked.id, b"numbers")
    assert not registry.evaluations.report(asked.id, b"other numbers")
    assert registry.evaluations.get(asked.id).report == b"numbers"
    with pytest.raises(NotFoundError, match="evl-0009"):
        registry.evaluations.report("evl-0009", b"")


def test_commits_are_serial_and_bring_their_merge_along(registry, evaluating):
    cat, dog = evaluating("cat"), evaluating("dog")
    assert registry.versions.head() is None
    news = NewEvent(None, "version", b"1")
    first = registry.versions.commit(
        1, "a" * 64, "b" * 64, None, cat.id, events=[news], candidate="refined"
    )
    assert first == registry.versions.head() == registry.versions.get(1)
    merged = registry.merges.get(cat.id)
    assert (merged.state, merged.net_version, merged.candidate) == (MergeState.MERGED, 1, "refined")
    assert merged.finished_at is not None
    for number, parent in ((1, None), (2, None), (3, 1), (3, 2)):
        with pytest.raises(ConflictError, match="the head is 1"):
            registry.versions.commit(
                number, "c" * 64, "d" * 64, parent, dog.id, events=[news], candidate="refined"
            )
    # The lost race left no trace: the merge can be committed on the new head.
    assert dog == registry.merges.get(dog.id)
    assert len(registry.events.after("dog-lab", 0, 10)) == 1
    registry.versions.commit(2, "c" * 64, "d" * 64, 1, dog.id)
    assert [version.number for version in registry.versions.all()] == [1, 2]
    assert registry.merges.get(dog.id).parent_version == 1
    with pytest.raises(NotFoundError, match="no net version 3; the head is 2"):
        registry.versions.get(3)


def test_only_an_evaluated_merge_is_committed(registry, admitted):
    merge = registry.merges.create(admitted("cat"), "cat", "classification", "new-category")
    with pytest.raises(ConflictError, match="'queued' and cannot become 'merged'"):
        registry.versions.commit(1, "a" * 64, "b" * 64, None, merge.id)
    assert registry.versions.head() is None
    founding = registry.merges.create(merge.submission_id, "cat", "classification", "found")
    registry.versions.commit(1, "a" * 64, "b" * 64, None, founding.id)
    assert MergeState.MERGED is registry.merges.get(founding.id).state
