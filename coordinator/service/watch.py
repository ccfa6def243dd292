"""Watch: a site's events after its cursor, then live ones, with heartbeats in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from rootstock.common.errors import SchemaError, UnreachableError
from rootstock.coordinator.context import CoordinatorContext
from rootstock.coordinator.registry import Registry
from rootstock.coordinator.service.messages import watch_response
from rootstock.coordinator.service.subscriptions import Subscriptions
from rootstock.protos.rootstock.federation.v1.federation_pb2 import (
    Heartbeat,
    Superseded,
    WatchRequest,
    WatchResponse,
)

PAGE = 100
"""Events read at once."""

MAX_INSTANCE = 128
"""Characters of an instance's name; a UUID has 36."""


async def watch(
    context: CoordinatorContext, subscriptions: Subscriptions, site: str, request: WatchRequest
) -> AsyncGenerator[WatchResponse]:
    """Yield a site's events for as long as it listens.

    A first heartbeat, at once or after what was missed, says that the agent is up to date.

    Raises
    ------
    UnreachableError
        When the coordinator stops; the agent tries again with its cursor.
    ConflictError
        If this instance was superseded before.
    SchemaError
        If the instance has no name, or too long a one.
    """
    if not 0 < len(request.instance) <= MAX_INSTANCE:
        raise SchemaError(
            f"instance has {len(request.instance)} characters; name this process with 1 to "
            f"{MAX_INSTANCE}"
        )
    registry = context.registry
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
            events = await asyncio.to_thread(registry.events.after, site, cursor, PAGE)
            for event in events:
                yield watch_response(event)
                cursor = event.cursor
            if events:
                continue
            seconds = context.config.server.heartbeat_seconds
            if not caught_up or not await _woken(subscription.woken, seconds):
                caught_up = True
                yield WatchResponse(heartbeat=Heartbeat())


def _start(registry: Registry, site: str, cursor: int) -> int:
    last = registry.events.last_cursor()
    if cursor <= last:
        return cursor
    # The database was put back from a backup: replaying is harmless (every event names what it is
    # about by id), waiting for the old number would keep the site deaf.
    structlog.get_logger("watch").warning("watch.cursor_ahead", site=site, cursor=cursor, last=last)
    return 0


async def _woken(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
