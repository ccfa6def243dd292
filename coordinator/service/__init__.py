"""The gRPC servers and interceptors; turns messages into calls on the registry."""

from __future__ import annotations

from coordinator.service.server import CoordinatorServer
from coordinator.service.subscriptions import Subscriptions
from coordinator.service.uploads.sessions import (
    receipt_bytes,
    signature_ref,
)

__all__ = ["CoordinatorServer", "Subscriptions", "receipt_bytes", "signature_ref"]
