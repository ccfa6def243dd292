"""How the history does while a coordinator runs: kept by its recorder, shown to the operator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HistoryState:
    """Where MLflow shows the net, and why merges wait for it."""

    name: str = ""
    """Of the experiment and the registered model; empty until MLflow has answered."""
    experiment_id: str = ""
    page: str = ""
    """Address of the page that lists the net's merges."""
    error: str = ""
    """What failed last; empty: the last try went well, or there was none yet."""
    since: float = 0.0
    """When it began to fail, in seconds since 1970; 0: it does not."""
