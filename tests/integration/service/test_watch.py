from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from rootstock.common.errors import ConflictError, SchemaError
from rootstock.coordinator.registry import MergeState
from rootstock.coordinator.registry.documents import MergeChanged, NewEvent, VersionCommitted
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.operator.v1.operator_pb2 import GetStatusRequest
from rootstock.protos.rootstock.operator.v1.operator_pb2_grpc import OperatorStub
from tests.support.coordinator_server import (
    CALL_SECONDS,
    LabMaker,
    Running,
    operator_channel,
    raising,
)

QUICK = pytest.mark.parametrize("coordinator", [{"heartbeat_seconds": 0.1}], indirect=True)


def tell(coordinator: Running, site: str, merge: str) -> int:
    event = MergeChanged(merge_id=merge, state=MergeState.FAILED, reason="").to(site)
    return coordinator.registry.events.append(event)


def take(stream: Any, count: int) -> list[pb.WatchResponse]:
    """Return the next events that are not heartbeats."""
    events = []
    with raising():
        for response in stream:
            if not response.HasField("heartbeat"):
                events.append(response)
            if len(events) == count:
                break
    return events


def merges(events: list[pb.WatchResponse]) -> list[str]:
    return [event.merge.merge_id for event in events]


@QUICK
def test_events_are_replayed_after_the_cursor_and_then_live(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    lab("dog-lab")
    for merge in ("mrg-0001", "mrg-0002"):
        tell(coordinator, "cat-lab", merge)
    tell(coordinator, "dog-lab", "mrg-0003")
    stream = cat.watch("a")
    replayed = take(stream, 2)
    assert merges(replayed) == ["mrg-0001", "mrg-0002"]
    everyone = VersionCommitted(
        number=1, digest="0" * 64, category="cat", task="classification"
    ).to(None)
    coordinator.registry.events.append(everyone)
    tell(coordinator, "cat-lab", "mrg-0004")
    live = take(stream, 2)
    assert live[0].version.number == 1
    assert merges(live[1:]) == ["mrg-0004"]
    cursors = [event.cursor for event in replayed + live]
    assert cursors == sorted(set(cursors))
    stream.cancel()
    # The agent comes back with the cursor of what it has dealt with.
    again = cat.watch("a", cursor=replayed[1].cursor)
    assert [event.cursor for event in take(again, 2)] == cursors[2:]
    again.cancel()


def test_a_live_event_does_not_wait_for_a_heartbeat(coordinator: Running, lab: LabMaker) -> None:
    stream = lab("cat-lab").watch("a")
    assert next(stream).HasField("heartbeat")  # up to date; the next one is in 10 seconds
    start = time.monotonic()
    tell(coordinator, "cat-lab", "mrg-0001")
    assert merges([next(stream)]) == ["mrg-0001"]
    assert time.monotonic() - start < 5
    stream.cancel()


@QUICK
def test_heartbeats_come_while_nothing_happens(lab: LabMaker) -> None:
    stream = lab("cat-lab").watch("a")
    for _ in range(3):
        beat = next(stream)
        assert beat.HasField("heartbeat")
        assert beat.cursor == 0
    stream.cancel()


def test_more_than_a_page_of_events(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    count = 250
    event = VersionCommitted(number=1, digest="0" * 64, category="cat", task="classification").to(
        None
    )
    for _ in range(count):
        coordinator.registry.events.append(NewEvent(None, event.kind, event.payload))
    stream = cat.watch("a")
    assert [event.cursor for event in take(stream, count)] == list(range(1, count + 1))
    stream.cancel()


def test_the_newer_instance_stays_and_the_older_is_told(
    coordinator: Running, lab: LabMaker
) -> None:
    cat = lab("cat-lab")
    older = cat.watch("older")
    next(older)
    newer = cat.watch("newer")
    next(newer)
    (told,) = take(older, 1)
    assert told.superseded.instance == "newer"
    assert told.cursor == 0
    with pytest.raises(StopIteration):
        next(older)
    # The older one does not come back and drive the newer out.
    with pytest.raises(ConflictError, match="'older' of site 'cat-lab' was superseded"), raising():
        next(cat.watch("older"))
    tell(coordinator, "cat-lab", "mrg-0001")
    assert merges(take(newer, 1)) == ["mrg-0001"]
    newer.cancel()


def test_the_same_instance_may_come_back_after_a_cut(coordinator: Running, lab: LabMaker) -> None:
    cat = lab("cat-lab")
    half_open = cat.watch("a")
    next(half_open)
    again = cat.watch("a")
    next(again)
    once_more = cat.watch("a")
    next(once_more)
    tell(coordinator, "cat-lab", "mrg-0001")
    assert merges(take(once_more, 1)) == ["mrg-0001"]
    for stream in (half_open, again, once_more):
        stream.cancel()


def test_labs_do_not_supersede_each_other(lab: LabMaker) -> None:
    streams = [lab(name).watch("a") for name in ("cat-lab", "dog-lab")]
    for stream in streams:
        assert next(stream).HasField("heartbeat")
        assert stream.is_active()
        stream.cancel()


@QUICK
def test_a_cursor_from_before_a_restored_backup_replays_all(
    coordinator: Running, lab: LabMaker
) -> None:
    tell_first = lab("cat-lab")
    tell(coordinator, "cat-lab", "mrg-0001")
    stream = tell_first.watch("a", cursor=999)
    assert merges(take(stream, 1)) == ["mrg-0001"]
    stream.cancel()


@pytest.mark.parametrize("instance", ["", "x" * 129])
def test_an_instance_has_a_name_of_bounded_length(lab: LabMaker, instance: str) -> None:
    with pytest.raises(SchemaError, match=f"{len(instance)} characters"), raising():
        next(lab("cat-lab").watch(instance))


def test_a_cut_watch_is_no_longer_watching(coordinator: Running, lab: LabMaker) -> None:
    stream = lab("cat-lab").watch("a")
    next(stream)
    with operator_channel(coordinator) as channel:

        def watching() -> bool:
            answer = OperatorStub(channel).GetStatus(GetStatusRequest(), timeout=CALL_SECONDS)
            return answer.sites[0].watching

        assert watching()
        stream.cancel()
        with pytest.raises(grpc.RpcError):
            next(stream)
        deadline = time.monotonic() + 10
        while watching():
            assert time.monotonic() < deadline, "still counted as watching"
            time.sleep(0.02)
