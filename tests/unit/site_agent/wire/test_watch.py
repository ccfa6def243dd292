"""The watch thread against real gRPC servers that stall, drop and refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from rootstock.common.errors import IdentityError, RootstockError
from rootstock.common.transport.status import abort_status
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.protos.rootstock.federation.v1 import federation_pb2_grpc as rpc
from rootstock.site_agent.config import NetworkConfig
from rootstock.site_agent.identity import IdentityFiles
from rootstock.site_agent.wire.client import CoordinatorClient
from rootstock.site_agent.wire.watch import Watcher
from tests.support import digits_lab
from tests.support.identities import client_credentials, server_credentials

Script = Callable[["Stalling", pb.WatchRequest, Any], Iterator[pb.WatchResponse]]


class Stalling(rpc.FederationServicer):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.cursors: list[int] = []
        self.instances: set[str] = set()

    def Watch(  # noqa: N802
        self, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        self.cursors.append(request.cursor)
        self.instances.add(request.instance)
        yield from self.script(self, request, context)


def event(cursor: int) -> pb.WatchResponse:
    return pb.WatchResponse(cursor=cursor, version=pb.NetVersionCommitted(number=cursor))


@contextmanager
def watching(
    tmp_path: Path, script: Script, cursor: int = 0, **network: float
) -> Iterator[tuple[Watcher, Stalling, list[BaseException]]]:
    servicer = Stalling(script)  # type: ignore[abstract]  # gRPC answers the other calls
    server = grpc.server(ThreadPoolExecutor(8))
    rpc.add_FederationServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials())
    server.start()
    settings = NetworkConfig(retry_cap_seconds=0.1, idle_seconds=0.5).model_copy(update=network)
    config = digits_lab.config(tmp_path, coordinator=f"127.0.0.1:{port}", network=settings)
    errors: list[BaseException] = []
    config = config.model_copy(update={"site": "lab"})
    client_credentials().write(IdentityFiles(config.state).credentials)
    client = CoordinatorClient(config, threading.Event(), lambda *_: None)
    try:
        with Watcher(client, cursor, lambda e, _: errors.append(e)) as watcher:
            yield watcher, servicer, errors
    finally:
        client.close()
        server.stop(0).wait()


def take(watcher: Watcher, count: int) -> list[int]:
    cursors = []
    for message in filter(None, watcher.events(threading.Event())):
        cursors.append(message.cursor)
        if len(cursors) == count:
            break
    return cursors


def test_a_silent_stream_is_opened_anew_after_the_last_event(tmp_path: Path) -> None:
    def script(
        servicer: Stalling, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        yield event(request.cursor + 1)
        while context.is_active():
            time.sleep(0.01)

    with watching(tmp_path, script, cursor=4) as (watcher, servicer, errors):
        assert take(watcher, 5) == [5, 0, 6, 0, 7]  # 0: the agent hears that it was broken
    assert servicer.cursors[:3] == [4, 5, 6]
    assert len(servicer.instances) == 1
    assert "no progress for 0.5 s" in str(errors[0])


def test_heartbeats_keep_a_quiet_stream_open(tmp_path: Path) -> None:
    def script(
        servicer: Stalling, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        for _ in range(15):
            time.sleep(0.1)
            yield pb.WatchResponse(heartbeat=pb.Heartbeat())
        yield event(1)

    with watching(tmp_path, script) as (watcher, servicer, _):
        assert take(watcher, 1) == [1]
        assert len(servicer.cursors) == 1


def test_a_server_that_is_away_is_tried_again(tmp_path: Path) -> None:
    def script(
        servicer: Stalling, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        if len(servicer.cursors) < 4:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield event(1)

    with watching(tmp_path, script) as (watcher, _servicer, errors):
        assert take(watcher, 2) == [0, 1]
    assert len(errors) >= 3


def test_a_known_event_is_not_given_twice(tmp_path: Path) -> None:
    def script(
        servicer: Stalling, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        yield from (event(1), event(2), event(1), event(2), event(3))
        while context.is_active():
            time.sleep(0.01)

    with watching(tmp_path, script) as (watcher, _, _errors):
        assert take(watcher, 3) == [1, 2, 3]


@pytest.mark.parametrize("error", [IdentityError("no such key"), RootstockError("a fault")])
def test_a_refusal_is_raised_not_tried_again(tmp_path: Path, error: RootstockError) -> None:
    def script(
        servicer: Stalling, request: pb.WatchRequest, context: Any
    ) -> Iterator[pb.WatchResponse]:
        code, details, metadata = abort_status(error)
        context.set_trailing_metadata(metadata)
        context.abort(code, details)
        yield event(1)

    with watching(tmp_path, script) as (watcher, servicer, _):
        with pytest.raises(type(error), match=str(error)):
            take(watcher, 1)
        time.sleep(0.3)
        assert len(servicer.cursors) == 1
