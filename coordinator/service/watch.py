"""Watch streams: a site's events after its cursor, then live ones, with heartbeats in between."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import lru_cache

import structlog

from rootstock.common.errors import ConflictError, SchemaError, UnreachableError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.registry import Change, Event, Registry
from rootstock.coordinator.registry.events import Events
from rootstock.coordinator.registry.wait import woken
from rootstock.coordinator.service.messages import sign_question, watch_response
from rootstock.coordinator.service.recent_events import KEPT, RecentEvents
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    Heartbeat,
    Superseded,
    WatchRequest,
    WatchResponse,
)

PAGE = 100

MAX_INSTANCE = 128
"""Characters of an instance's name; a UUID has 36."""

REMEMBERED = 16
"""Superseded instances remembered a site: more than a lab restarts within a day."""


class Subscription:
    """One open watch stream of a site."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.woken = asyncio.Event()
        self.superseded_by: str | None = None


class Subscriptions:
    """The watch streams of this process. Use from its event loop; `notify` from any thread."""

    def __init__(self, events: Events) -> None:
        self.draining = False
        self.events = RecentEvents(events)
        self._open: dict[str, Subscription] = {}
        self._superseded: dict[str, deque[str]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log = structlog.get_logger("watch")

    @contextmanager
    def subscribe(self, site: str, instance: str) -> Iterator[Subscription]:
        """Make this the subscription of a site; an older one is superseded and woken.

        An instance that was superseded before is refused (ConflictError): two agents would drive
        each other out for ever.
        """
        self._loop = asyncio.get_running_loop()
        superseded = self._superseded.setdefault(site, deque(maxlen=REMEMBERED))
        if instance in superseded:
            raise ConflictError(
                f"instance '{instance}' of site '{site}' was superseded by a newer one; stop "
                "this agent, or give it a key and a name of its own"
            )
        older = self._open.get(site)
        if older is not None:
            if older.instance != instance:
                superseded.append(older.instance)
                self._log.warning(
                    "watch.superseded", site=site, older=older.instance, newer=instance
                )
            older.superseded_by = instance
            older.woken.set()
        subscription = self._open[site] = Subscription(instance)
        try:
            yield subscription
        finally:
            if self._open.get(site) is subscription:
                del self._open[site]

    def notify(self, change: Change) -> None:
        """Wake those whom a committed change concerns; for `Registry.subscribe`, any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed() and (change.sites or change.everyone):
            loop.call_soon_threadsafe(self._wake, change)

    def drain(self) -> None:
        """End every stream: the coordinator stops."""
        self.draining = True
        self._wake(Change(everyone=True))

    def sites(self) -> set[str]:
        """Return the sites that watch now."""
        return set(self._open)

    def _wake(self, change: Change) -> None:
        self.events.changed()
        for site, subscription in self._open.items():
            if change.everyone or site in change.sites:
                subscription.woken.set()


async def watch(
    context: CoordinatorContext, subscriptions: Subscriptions, site: str, request: WatchRequest
) -> AsyncGenerator[WatchResponse]:
    """Yield a site's events for as long as it listens.

    A first heartbeat, at once or after what was missed, says that the agent is up to date.
    UnreachableError when the coordinator stops: the agent tries again with its cursor.
    """
    if not 0 < len(request.instance) <= MAX_INSTANCE:
        raise SchemaError(
            f"instance has {len(request.instance)} characters; name this process with 1 to "
            f"{MAX_INSTANCE}"
        )
    registry, seconds = context.registry, context.config.server.heartbeat_seconds
    cursor = await asyncio.to_thread(_start, registry, site, request.cursor)
    caught_up = False
    with subscriptions.subscribe(site, request.instance) as subscription:
        while True:
            subscription.woken.clear()
            if subscription.superseded_by is not None:
                yield WatchResponse(superseded=Superseded(instance=subscription.superseded_by))
                return
            if subscriptions.draining:
                raise UnreachableError("the coordinator stops; watch again when it is back")
            events = await subscriptions.events.after(site, cursor, PAGE)
            for event in events:
                yield await _response(context, site, event)
                cursor = event.cursor
            if len(events) == PAGE:
                continue
            if not caught_up or not await woken(subscription.woken, seconds):
                caught_up = True
                yield WatchResponse(heartbeat=Heartbeat())


async def _response(context: CoordinatorContext, site: str, event: Event) -> WatchResponse:
    """Return an event's message; a question is signed, for this site and its time."""
    response = _message(event)
    if response.HasField("evaluation"):
        response = watch_response(event)  # one's own: it is changed
        question = response.evaluation
        asked = await asyncio.to_thread(context.registry.evaluations.get, question.evaluation_id)
        lapses = asked.requested_at + context.config.evaluation.patience_days * 24 * 3600
        sign_question(question, site, math.ceil(lapses), context.key)
    return response


_message = lru_cache(maxsize=KEPT)(watch_response)
"""The same message for all whom an event concerns."""


def _start(registry: Registry, site: str, cursor: int) -> int:
    last = registry.events.last_cursor()
    if cursor <= last:
        return cursor
    # The database was put back from a backup: replaying is harmless (every event names what it is
    # about by id), waiting for the old number would keep the site deaf.
    structlog.get_logger("watch").warning("watch.cursor_ahead", site=site, cursor=cursor, last=last)
    return 0
