"""Where a coordinator keeps things, all below its state folder unless the configuration says so."""

from __future__ import annotations

from rootstock.coordinator.config import StateConfig


class StatePaths:
    """Paths and addresses of one coordinator."""

    def __init__(self, config: StateConfig) -> None:
        self.state = config.state.resolve()
        self.database_file = self.state / "registry.sqlite"
        self.database = config.database or f"sqlite:///{self.database_file}"
        self.artifacts = config.artifacts or str(self.state / "artifacts")
        self.cache = self.state / "cache"
        self.incoming = self.state / "incoming"
        self.pictures = self.state / "pictures"
        self.plan = self.state / "plan.json"
        self.heads = self.state / "heads.json"
        self.key = self.state / "identity" / "coordinator.key"
        self.address = self.state / "address"
        self.operator_token = self.state / "operator-token"
