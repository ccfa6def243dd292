"""One map between the exception tree and gRPC's status codes, both ways.

The class travels by name in the trailing metadata, so that the caller raises the very class
that the callee raised; the code is for peers and tools that know only gRPC.
"""

from __future__ import annotations

import math
from typing import Any

import grpc

from rootstock.common import errors
from rootstock.common.errors import RootstockError
from rootstock.common.text import outward, plain

ERROR_KEY = "rootstock-error"
"""Trailing metadata: the name of the exception's class."""

RETRY_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata: how long a caller is to wait before it tries again (gRFC A6)."""

MAX_RETRY_SECONDS = 300.0
"""A peer that asks for more than this is asked again after this."""

MAX_DETAILS = 2000
"""Characters of a message on the wire: gRPC drops a call whose metadata passes 8 KiB."""

Metadata = tuple[tuple[str, str | bytes], ...]

_CODES: dict[type[RootstockError], grpc.StatusCode] = {
    RootstockError: grpc.StatusCode.INTERNAL,
    errors.ConfigurationError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MissingExtraError: grpc.StatusCode.UNIMPLEMENTED,
    errors.DataError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AddressInUseError: grpc.StatusCode.INTERNAL,
    errors.UnreachableError: grpc.StatusCode.UNAVAILABLE,
    errors.BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RefusedError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.IntegrityError: grpc.StatusCode.DATA_LOSS,
    errors.LimitError: grpc.StatusCode.OUT_OF_RANGE,
    errors.SchemaError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.IdentityError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ProtocolVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.TransplantError: grpc.StatusCode.FAILED_PRECONDITION,
}

# For calls that never reached our own code: gRPC itself, or a proxy, gave the status.
_CLASSES: dict[grpc.StatusCode, type[RootstockError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.UnreachableError,
    grpc.StatusCode.CANCELLED: errors.UnreachableError,
    grpc.StatusCode.UNIMPLEMENTED: errors.ProtocolVersionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitError,
    grpc.StatusCode.UNAUTHENTICATED: errors.IdentityError,
    grpc.StatusCode.PERMISSION_DENIED: errors.IdentityError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
}

_WRONG_PEER = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What gRPC says of a handshake in which the server did not prove who it is. It calls that
unavailable; to try again would not help."""


def abort_status(error: RootstockError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return code, details and trailing metadata with which a server ends a call.

    The details are on the wire: no local path is in them, and no database's address.
    """
    kind = next(base for base in type(error).__mro__ if base in _CODES)
    details = outward(plain(str(error), 2 * MAX_DETAILS))
    if len(details) > MAX_DETAILS:
        details = details[: MAX_DETAILS - 3] + "..."
    trailing: Metadata = ((ERROR_KEY, kind.__name__),)
    if isinstance(error, errors.BusyError):
        trailing += ((RETRY_KEY, str(math.ceil(1000 * error.retry_seconds))),)
    return _CODES[kind], details, trailing


def error_from_rpc(rpc_error: grpc.RpcError) -> RootstockError:
    """Return the exception that a failed call stands for, to be raised from it.

    The class is the one that the peer raised where it says so, else the one that the code maps
    to; a plain `RootstockError` (exit 1) for a fault inside the peer.
    """
    call: Any = rpc_error  # both grpc.Call and grpc.aio.AioRpcError have these three methods
    code: grpc.StatusCode = call.code()
    details = plain(call.details() or code.name)
    named = _named(call)
    if named == errors.BusyError.__name__:
        return errors.BusyError(details, _retry_seconds(call))
    for kind in _CODES:
        if kind.__name__ == named:
            return kind(details)
    if code is grpc.StatusCode.UNAVAILABLE and any(words in details for words in _WRONG_PEER):
        return errors.IdentityError(
            "what answers there is not the coordinator: its certificate is not signed by the net's "
            "authority, or not good at this time; check the address and the clock. If the "
            f"coordinator was set up anew, ask for an invitation and join it ({details})"
        )
    kind = _CLASSES.get(code, RootstockError)
    return kind(f"{details} ({code.name})")


def from_peer(rpc_error: grpc.RpcError) -> bool:
    """Return whether a failed call was answered by our own code, rather than by gRPC itself."""
    return _named(rpc_error) is not None


def _retry_seconds(call: Any) -> float:
    """Return how long the peer asks to be left alone: a number of its own, so it is capped."""
    said = _trailing(call).get(RETRY_KEY, "")
    milliseconds = int(said) if isinstance(said, str) and said[:9].isdecimal() else 0
    return min(milliseconds / 1000, MAX_RETRY_SECONDS)


def _named(call: Any) -> str | bytes | None:
    return _trailing(call).get(ERROR_KEY)


def _trailing(call: Any) -> dict[str, str | bytes]:
    return dict(call.trailing_metadata() or ())
