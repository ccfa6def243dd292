"""What a member may ask at once; whoever asks for more is told when to come again."""

from __future__ import annotations

import time

import grpc
import pytest

from rootstock.common.errors import BusyError
from rootstock.common.transport.retry import retrying
from rootstock.coordinator.service import interceptors
from rootstock.coordinator.service.downloads import Downloads
from rootstock.coordinator.service.interceptors import CALLS_AT_A_TIME, CALLS_AT_ONCE
from rootstock.protos.rootstock.federation.v1.federation_pb2 import DownloadRequest
from tests.support.coordinator_server import CALL_SECONDS, LabMaker, Running, raising


def test_a_member_in_a_loop_is_slowed_down_and_others_are_not(lab: LabMaker) -> None:
    hasty, other = lab("hasty"), lab("other")

    def hurry() -> None:
        for _ in range(3 * CALLS_AT_ONCE):
            hasty.plan()

    with pytest.raises(BusyError, match="'hasty' makes more than 50 calls a second") as refused:
        hurry()
    cause = refused.value.__cause__
    assert isinstance(cause, grpc.RpcError)
    assert cause.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 0 < refused.value.retry_seconds <= 0.021
    other.plan()
    time.sleep(refused.value.retry_seconds + 0.05)
    hasty.plan()


@pytest.fixture
def large_blob(coordinator: Running, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the digest of a blob that does not fit in what gRPC buffers for a call."""
    # Which blobs a lab may read is tested elsewhere.
    monkeypatch.setattr(Downloads, "allowed", lambda *_: True)
    return coordinator.store.put_bytes(bytes(32 << 20))


def test_calls_of_a_kind_that_are_open_are_counted(lab: LabMaker, large_blob: str) -> None:
    one, other = lab("one"), lab("other")
    request = DownloadRequest(digest=large_blob)
    unread = [one.stub.Download(request, timeout=CALL_SECONDS) for _ in range(CALLS_AT_A_TIME)]
    for call in unread:
        next(call)
    with pytest.raises(BusyError, match=r"'one' has 8 calls of .*Download open"), raising():
        next(one.stub.Download(request, timeout=CALL_SECONDS))
    next(other.stub.Download(request, timeout=CALL_SECONDS))
    one.plan()  # of another kind
    unread[0].cancel()
    policy = retrying(longest_seconds=0.05, patience_seconds=CALL_SECONDS)

    def again() -> None:
        with raising():
            next(one.stub.Download(request, timeout=CALL_SECONDS))

    policy(again)


def test_a_download_that_nobody_takes_ends(
    lab: LabMaker, large_blob: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptors, "UNREAD_SECONDS", 0.5)
    call = lab("one").stub.Download(DownloadRequest(digest=large_blob), timeout=3 * CALL_SECONDS)
    next(call)
    time.sleep(6)  # until what lies between the two is full, and then some
    with pytest.raises(BusyError, match=r"nothing was read from this call for 0\.5 s"), raising():
        list(call)
