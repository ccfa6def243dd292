"""The gRPC servers and interceptors; turns messages into calls on the registry."""

from __future__ import annotations

from rootstock.coordinator.service.server import CoordinatorServer
from rootstock.coordinator.service.subscriptions import Subscriptions

__all__ = ["CoordinatorServer", "Subscriptions"]
