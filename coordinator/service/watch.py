"""Watch: a site's events after its cursor, then live ones, with heartbeats in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import structlog

from rootstock.common.errors import SchemaError, UnreachableError
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
    request: WatchRequest,
    site: str,
    *,
    registry: Registry,
    watchers: Subscriptions,
    heartbeat_seconds: float,
) -> AsyncGenerator[WatchResponse]:
    """Yield a site's events for as long as it listens.

    A first heartbeat, at once or after what was missed, tells the agent that it is up to date.

    Raises
    ------
    UnreachableError
        When the coordinator stops; the agent comes back with its cursor.
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
    cursor = await _start(request.cursor, site, registry)
    caught_up = False
    with watchers.lease(site, request.instance) as lease:
        while True:
            lease.woken.clear()
            if lease.superseded_by is not None:
                yield WatchResponse(superseded=Superseded(instance=lease.superseded_by))
                return
            if watchers.draining:
                raise UnreachableError("the coordinator stops; watch again when it is back")
            events = await asyncio.to_thread(registry.events.after, site, cursor, PAGE)
            for event in events:
                yield watch_response(event)
                cursor = event.cursor
            if events:
                continue
            if not caught_up or not await _woken(lease.woken, heartbeat_seconds):
                caught_up = True
                yield WatchResponse(heartbeat=Heartbeat())


async def _start(cursor: int, site: str, registry: Registry) -> int:
    last = await asyncio.to_thread(registry.events.last_cursor)
    if cursor <= last:
        return cursor
    # The database was put back from a backup: replaying is harmless (every event names what it is
    # about by id), waiting for the old number would keep the site deaf.
    structlog.get_logger("watch").warning("cursor ahead", site=site, cursor=cursor, last=last)
    return 0


async def _woken(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
