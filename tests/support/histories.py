"""A coordinator's history at an MLflow server, for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rootstock.coordinator.config import HistoryConfig
from rootstock.coordinator.history.mlflow_history import History

COORDINATOR = "0123456789abcdef"
"""The fingerprint of a key."""


def history_at(uri: str, net: str, coordinator: str = COORDINATOR) -> History:
    """Return the history of a net."""
    scratch = Path(tempfile.gettempdir())
    return History(HistoryConfig(mlflow_uri=uri), net, coordinator, scratch)
