"""What is done around every call: who makes it is verified, and an error becomes a status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from rootstock.common.errors import BusyError, IdentityError, RootstockError
from rootstock.common.transport.status import abort_status
from rootstock.coordinator.identity.guard import Caller, Guard
from rootstock.coordinator.identity.rate import RateLimit
from rootstock.coordinator.registry import Access
from rootstock.coordinator.registry.entries import ACTING

FEDERATION = "/rootstock.federation.v1.Federation/"
OPERATOR = "/rootstock.operator.v1.Operator/"

FAULT = "a fault of the coordinator; its operator finds the traceback in its log"

_LOOKING = frozenset({"GetStatus", "ListMembers"})
_DECIDING = frozenset({"DecideMerge", "Grow", "RollBack"})

CALLS_PER_SECOND, CALLS_AT_ONCE = 50.0, 200
"""What one member may ask: an agent makes a few calls a minute, and a few dozen after a cut."""

CALLS_AT_A_TIME = 8
"""Calls of one kind that a member may have open: an agent has one of each."""

UNREAD_SECONDS = 60.0
"""A stream from which its peer takes nothing for so long ends: what waits for it is in memory."""

_CALLER: ContextVar[str] = ContextVar("rootstock_caller")


def caller() -> str:
    """Return the name of the member that makes the call being served."""
    return _CALLER.get()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends calls of ours that raise one of our errors with its status; a fault stays a fault.

    Health and reflection are left as they are.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("service")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a call of ours."""
        handler: Any = await continuation(details)
        method = details.method
        if handler is None or not method.startswith("/rootstock."):
            return handler
        sides = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if streaming else "unary" for streaming in sides)
        behaviour: Any = getattr(handler, kind)

        async def one(request: Any, context: Any) -> Any:
            async with self._around(method, context):
                return await behaviour(request, context)

        async def many(request: Any, context: Any) -> None:
            # Written here rather than yielded: a call that is cut while nobody reads it ends with
            # its status. Closed at once, not when memory is next tidied up.
            async with (
                self._around(method, context),
                aclosing(behaviour(request, context)) as responses,
            ):
                async for response in responses:
                    await _write(context, response)

        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            many if handler.response_streaming else one,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @asynccontextmanager
    async def _around(self, method: str, context: Any) -> AsyncIterator[None]:
        try:
            async with self._admitted(method, context):
                yield
        except RootstockError as error:
            code, message, trailing = abort_status(error)
            kind = type(error).__name__
            self._log.info(
                "call.refused", method=method, code=code.name, kind=kind, error=str(error)
            )
            await context.abort(code, message, trailing)
        except Exception:  # noqa: BLE001
            if not context.done():
                self._log.exception("call.failed", method=method)
            # gRPC itself would send the exception's own text, with whatever is in it.
            await context.abort(grpc.StatusCode.INTERNAL, FAULT)

    @asynccontextmanager
    async def _admitted(self, _method: str, _context: Any) -> AsyncIterator[None]:
        """Run a call of whoever may make it; everyone may."""
        yield


class CallInterceptor(ErrorInterceptor):
    """Lets in whom the certificate of the connection names, for as long as it may call."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard
        self._rate = RateLimit(CALLS_PER_SECOND, CALLS_AT_ONCE)
        self._open: Counter[tuple[str, str]] = Counter()

    @asynccontextmanager
    async def _admitted(self, method: str, context: Any) -> AsyncIterator[None]:
        (certificate,) = context.auth_context()["x509_pem_cert"]
        member = self._guard.caller(certificate)
        _require_access(member, method)
        _CALLER.set(member.name)
        ACTING.set(f"{'site' if member.access is Access.SITE else 'operator'}/{member.name}")
        with self._counted(member.name, method):
            async with self._guard.during(member):
                yield

    @contextmanager
    def _counted(self, member: str, method: str) -> Iterator[None]:
        """Let in as many calls of a member as it may make; BusyError says when to come again."""
        if wait := self._rate.wait(member):
            raise BusyError(
                f"'{member}' makes more than {CALLS_PER_SECOND:g} calls a second; wait", wait
            )
        kind = (member, method)
        if self._open[kind] >= CALLS_AT_A_TIME:
            raise BusyError(
                f"'{member}' has {self._open[kind]} calls of {method} open, the limit is "
                f"{CALLS_AT_A_TIME}; end some first"
            )
        self._open[kind] += 1
        try:
            yield
        finally:
            self._open[kind] -= 1
            if not self._open[kind]:
                del self._open[kind]


async def _write(context: Any, response: Any) -> None:
    """Send one message of a stream; BusyError if the peer takes none for a long time."""
    try:
        async with asyncio.timeout(UNREAD_SECONDS):
            await context.write(response)
    except TimeoutError as error:
        raise BusyError(
            f"nothing was read from this call for {UNREAD_SECONDS:g} s; call again for the rest"
        ) from error


def _require_access(member: Caller, method: str) -> None:
    """Refuse a call that is not for a member's kind, or above what an operator may."""
    if method.startswith(FEDERATION):
        allowed = member.access is Access.SITE
    else:
        allowed = member.access in _needed(method.removeprefix(OPERATOR))
    if not allowed:
        raise IdentityError(
            f"'{member.name}' has access '{member.access}', which does not allow {method}; ask the "
            "coordinator's operator for another invitation"
        )


def _needed(call: str) -> tuple[Access, ...]:
    if call in _LOOKING:
        return Access.VIEW, Access.DECIDE, Access.ADMIN
    if call in _DECIDING:
        return Access.DECIDE, Access.ADMIN
    return (Access.ADMIN,)
