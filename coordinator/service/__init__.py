"""The gRPC servers and interceptors; turns messages into calls on the registry."""

from __future__ import annotations

from rootstock.coordinator.paths import signature_ref
from rootstock.coordinator.service.server import CoordinatorServer
from rootstock.coordinator.service.subscriptions import Subscriptions
from rootstock.coordinator.service.uploads.sessions import receipt_bytes

__all__ = ["CoordinatorServer", "Subscriptions", "receipt_bytes", "signature_ref"]
