"""The stream of events from the coordinator, in a thread of its own, opened anew when it ends."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator
from typing import NamedTuple

import grpc

from rootstock.common.errors import RootstockError, UnreachableError
from rootstock.common.transport.idle import IdleWatch
from rootstock.common.transport.retry import retrying
from rootstock.common.transport.status import error_from_rpc
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.wire import messages
from rootstock.site_agent.wire.client import CoordinatorClient, OnRetry, waited_for
from rootstock.site_agent.wire.messages import Event, Reopened

_MAX_WAITING = 1000
"""Events in the queue before the stream is left to wait: the coordinator keeps the rest."""

_PAUSE_SECONDS = 0.5
"""Before a stream that had worked is opened anew: a server that drains needs a moment."""


class Received(NamedTuple):
    """An event, and the cursor that says it was dealt with; 0: it is not to be remembered."""

    cursor: int
    event: Event


class Watcher:
    """Watches while the agent works: the coordinator sees the lab, and no event is missed.

    The cursor is the last event that was dealt with, 0 for all; `on_retry` is called for every
    broken stream.
    """

    def __init__(self, client: CoordinatorClient, cursor: int, on_retry: OnRetry) -> None:
        self._client = client
        self._cursor = cursor
        self._on_retry = on_retry
        self._instance = secrets.token_hex(8)
        self._queue: queue.Queue[Received | BaseException] = queue.Queue(_MAX_WAITING)
        self._closing = threading.Event()
        self._reopening = threading.Event()
        self._call: grpc.Call | None = None
        self._tried = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join(timeout=5)

    def reopen(self) -> None:
        """End the stream, and open it anew at once: the client has another certificate."""
        self._reopening.set()
        if self._call is not None:
            self._call.cancel()

    def events(self, stop: threading.Event) -> Iterator[Received | None]:
        """Yield events in order until `stop` is set; raise a refusal, or a fault of the thread.

        None, several times a second, where there is none.
        """
        while not stop.is_set():
            try:
                item = self._queue.get(timeout=0.2)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        policy = retrying(
            longest_seconds=self._client.network.retry_cap_seconds,
            stop=self._closing,
            on_retry=self._on_retry,
        )
        try:
            while not self._closing.is_set():
                # Returns when a stream that had worked ends: pauses start small again.
                policy(self._stream)
        except RootstockError as error:
            if not self._closing.is_set():
                self._put(error)
        except BaseException as error:
            self._put(error)
            raise

    def _stream(self) -> None:
        self._client.require_certificate()
        self._reopening.clear()
        again, self._tried = self._tried, True
        request = pb.WatchRequest(cursor=self._cursor, instance=self._instance)
        call = self._client.stub.Watch(request)
        self._call = call
        worked = False
        seconds = self._client.network.idle_seconds
        watch = IdleWatch(call.cancel, seconds=seconds, what="the watch stream")
        try:
            with watch:
                for message in call:
                    if not worked and again:
                        self._put(Received(0, Reopened()))
                    worked = True
                    watch.progress()
                    if self._closing.is_set():
                        return
                    self._take(message)
            ended: RootstockError = UnreachableError("the coordinator ended the watch stream")
        except grpc.RpcError as error:
            if self._closing.is_set() or self._reopening.is_set():
                return
            ended = watch.error() if watch.expired else waited_for(error_from_rpc(error))
        if worked and isinstance(ended, UnreachableError):
            self._on_retry(ended, _PAUSE_SECONDS)
            self._closing.wait(_PAUSE_SECONDS)
            return
        raise ended

    def _take(self, message: pb.WatchResponse) -> None:
        event = messages.event(message)
        if event is None:
            return
        if message.cursor:
            if message.cursor <= self._cursor:
                return  # known: the stream was opened anew
            self._cursor = message.cursor
        self._put(Received(message.cursor, event))

    def _put(self, item: Received | BaseException) -> None:
        while not self._closing.is_set():
            try:
                self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
            return
