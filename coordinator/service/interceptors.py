"""What is done around every call: who makes it is verified, and an error becomes a status."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
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


def caller() -> str:
    """Return the site that makes the call being served; its signature was verified."""
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
            async with self._around(method, request, context):
                return await behaviour(request, context)

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            # Closed at once when the call is cut, not when memory is next tidied up.
            async with (
                self._around(method, request, context),
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
    async def _around(self, method: str, request: Any, context: Any) -> AsyncIterator[None]:
        try:
            async with self._admitted(method, request, context):
                yield
        except RootstockError as error:
            code, message, trailing = abort_status(error)
            kind = type(error).__name__
            self._log.info("call.refused", method=method, code=code.name, kind=kind, error=message)
            await context.abort(code, message, trailing)
        except Exception:
            if not context.done():
                self._log.exception("call.failed", method=method)
            raise

    @asynccontextmanager
    async def _admitted(self, _method: str, _request: Any, _context: Any) -> AsyncIterator[None]:
        """Run a call of whoever may make it; everyone may."""
        yield


class CallInterceptor(ErrorInterceptor):
    """Lets in sites that sign their calls, and the operator who has the token."""

    def __init__(self, registry: Registry, operator_token: str) -> None:
        super().__init__()
        self._registry = registry
        self._authorization = f"Bearer {operator_token}".encode()
        self._nonces = NonceMemory()
        self._keys: dict[str, bytes] = {}  # a name never changes its key

    @asynccontextmanager
    async def _admitted(self, method: str, request: Any, context: Any) -> AsyncIterator[None]:
        metadata = [(key, value) for key, value in context.invocation_metadata() or ()]
        if method.startswith(OPERATOR):
            self._check_operator(metadata)
        elif method == JOIN:
            _CALLER.set(_joining(request, metadata))
        else:
            _CALLER.set(await asyncio.to_thread(self._verified, method, metadata))
        yield

    def _check_operator(self, metadata: list[tuple[str, Any]]) -> None:
        given = str(dict(metadata).get("authorization", "")).encode()
        if not hmac.compare_digest(given, self._authorization):
            raise IdentityError(
                "the operator's token is missing or wrong; it is in the file operator-token in "
                "the coordinator's state folder"
            )

    def _verified(self, method: str, metadata: list[tuple[str, Any]]) -> str:
        return verify_call(metadata, method, self._key_of, time.time(), self._nonces)

    def _key_of(self, site: str) -> bytes | None:
        key = self._keys.get(site) or self._registry.sites.key_of(site)
        if key is not None:
            self._keys[site] = key
        return key


def _joining(request: JoinRequest, metadata: list[tuple[str, Any]]) -> str:
    """Verify a Join with the key in the request itself: it proves that the caller has it.

    Anyone can make such a call, and made again it changes nothing: its nonces are not remembered,
    or strangers could fill the memory that the labs' calls need.
    """
    site = verify_call(metadata, JOIN, lambda _: request.public_key, time.time(), None)
    if site != request.site:
        raise IdentityError(
            f"the call is signed as '{site}', the request would join '{request.site}'; use one name"
        )
    return site
