"""What is done around every call: who makes it is verified, and an error becomes a status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from rootstock.common.errors import IdentityError, RootstockError
from rootstock.common.transport.status import abort_status
from rootstock.coordinator.identity.guard import Caller, Guard
from rootstock.coordinator.registry import Access

FEDERATION = "/rootstock.federation.v1.Federation/"
OPERATOR = "/rootstock.operator.v1.Operator/"

FAULT = "a fault of the coordinator; its operator finds the traceback in its log"

_LOOKING = frozenset({"GetStatus", "ListMembers"})
_DECIDING = frozenset({"DecideMerge", "Grow", "RollBack"})

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

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            # Closed at once when the call is cut, not when memory is next tidied up.
            async with (
                self._around(method, context),
                aclosing(behaviour(request, context)) as responses,
            ):
                async for response in responses:
                    yield response

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

    @asynccontextmanager
    async def _admitted(self, method: str, context: Any) -> AsyncIterator[None]:
        (certificate,) = context.auth_context()["x509_pem_cert"]
        member = self._guard.caller(certificate)
        _require_access(member, method)
        _CALLER.set(member.name)
        async with self._guard.during(member):
            yield


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
