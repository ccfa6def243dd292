"""The gRPC servers and interceptors; turns messages into calls on the registry."""

from __future__ import annotations

from coordinator.service.server import CoordinatorServer
from coordinator.service.uploads import receipt_bytes, signature_ref
from coordinator.service.watchers import Watchers

__all__ = ["CoordinatorServer", "Watchers", "receipt_bytes", "signature_ref"]
