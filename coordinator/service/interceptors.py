"""What stands before every call of ours: who calls, and how an error becomes a status."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from rootstock.common.errors import IdentityError, RootstockError
from rootstock.common.transport.auth import NonceMemory, verify_call
from rootstock.common.transport.status import abort_status
from rootstock.coordinator.registry import Registry
from rootstock.protos.rootstock.federation.v1.federation_pb2 import JoinRequest

FEDERATION = "/rootstock.federation.v1.Federation/"
OPERATOR = "/rootstock.operator.v1.Operator/"
JOIN = FEDERATION + "Join"

_CALLER: ContextVar[str] = ContextVar("rootstock_caller")

Around = Callable[[str, Any, Any], AbstractAsyncContextManager[None]]
"""What is done around a call: given its method, its request (None for a stream) and context."""


def caller() -> str:
    """Return the site that makes the call being served; its signature was verified."""
    return _CALLER.get()


class Interceptor(grpc.aio.ServerInterceptor):
    """Puts an asynchronous context manager around every call of our two services."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler; health and reflection are left as they are."""
        handler: Any = await continuation(details)
        method = details.method
        if handler is None or not method.startswith((FEDERATION, OPERATOR)):
            return handler
        kind = {
            (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
            (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
            (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
            (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
        }[handler.request_streaming, handler.response_streaming]
        make: Any = kind[0]
        behaviour = getattr(handler, kind[1])

        async def one(request: Any, context: Any) -> Any:
            shown = None if handler.request_streaming else request
            async with self._around(method, shown, context):
                return await behaviour(request, context)

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            shown = None if handler.request_streaming else request
            # Closed at once when the call is cut, not when memory is next tidied up.
            async with (
                self._around(method, shown, context),
                aclosing(behaviour(request, context)) as responses,
            ):
                async for response in responses:
                    yield response

        return make(
            many if handler.response_streaming else one,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def error_interceptor() -> Interceptor:
    """End calls that raise one of our errors with its status; a fault of ours stays a fault."""
    log = structlog.get_logger("service")

    @asynccontextmanager
    async def around(method: str, _: Any, context: Any) -> AsyncIterator[None]:
        try:
            yield
        except RootstockError as error:
            code, details, trailing = abort_status(error)
            kind = type(error).__name__
            log.info("refused", method=method, code=code.name, kind=kind, error=details)
            await context.abort(code, details, trailing)
        except Exception:
            if not context.done():
                log.exception("fault", method=method)
            raise

    return Interceptor(around)


def auth_interceptor(
    registry: Registry, operator_token: str, clock: Callable[[], float] = time.time
) -> Interceptor:
    """Let in sites that sign their calls, and the operator who has the token.

    Join is verified with the key in the request itself: it proves that the caller holds it. Anyone
    can make such a call, and made again it changes nothing: its nonces are not remembered, or
    strangers could fill the memory that the labs' calls need.
    """
    nonces = NonceMemory()
    keys: dict[str, bytes] = {}  # a name never changes its key

    def key_of(site: str) -> bytes | None:
        if site not in keys:
            key = registry.sites.key_of(site)
            if key is None:
                return None
            keys[site] = key
        return keys[site]

    def check_operator(metadata: list[tuple[str, Any]]) -> None:
        given = dict(metadata).get("authorization", "")
        if not hmac.compare_digest(str(given).encode(), f"Bearer {operator_token}".encode()):
            raise IdentityError(
                "the operator's token is missing or wrong; it stands in the file operator-token "
                "in the coordinator's state folder"
            )

    @asynccontextmanager
    async def around(method: str, request: Any, context: Any) -> AsyncIterator[None]:
        metadata = [(key, value) for key, value in context.invocation_metadata() or ()]
        if method.startswith(OPERATOR):
            check_operator(metadata)
        elif method == JOIN:
            _CALLER.set(_joining(request, metadata, clock()))
        else:
            site = await asyncio.to_thread(verify_call, metadata, method, key_of, clock(), nonces)
            _CALLER.set(site)
        yield

    return Interceptor(around)


def _joining(request: JoinRequest, metadata: list[tuple[str, Any]], now: float) -> str:
    site = verify_call(metadata, JOIN, lambda _: request.public_key, now, None)
    if site != request.site:
        raise IdentityError(
            f"the call is signed as '{site}', the request would join '{request.site}'; use one name"
        )
    return site
