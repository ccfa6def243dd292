"""Where a coordinator keeps things, all below its state folder unless the configuration says so."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from rootstock.coordinator.config import StateConfig

SAMPLES = "samples"
"""Below it, one private area of the store for each submission whose lab shared samples."""

JOBS = "jobs"
"""Below it, one private area for each merge whose job runs: checkpoints, the operator's samples."""

SIGNATURES = "signatures"
"""Below it, names of the store that point at the signatures of manifests."""


def sqlite_address(path: Path) -> str:
    """Return the address of a SQLite file: what an address means something else by is written %XX.

    Behind a "?" would be options, so two folders "net?a" and "net?b" would share one file, "net".
    """
    return "sqlite:///" + re.sub("[%?#]", lambda found: quote(found[0]), str(path))


def signature_ref(manifest_digest: str) -> str:
    """Return the name that points at the signature of a manifest: 64 raw bytes."""
    return f"{SIGNATURES}/{manifest_digest[:2]}/{manifest_digest[2:]}"


def samples_area(submission_id: str) -> str:
    """Return the name of the area with a submission's samples, which lie nowhere else."""
    return f"{SAMPLES}/{submission_id}"


def job_area(merge_id: str) -> str:
    """Return the name of the area of a merge's job; it goes when the job has ended."""
    return f"{JOBS}/{merge_id}"


class StatePaths:
    """Paths and addresses of one coordinator."""

    def __init__(self, config: StateConfig) -> None:
        self.state = config.state.resolve()
        self.database_file = self.state / "registry.sqlite"
        self.database = config.database or sqlite_address(self.database_file)
        self.artifacts = config.artifacts or str(self.state / "artifacts")
        self.cache = self.state / "cache"
        self.incoming = self.state / "incoming"
        self.plan = self.state / "plan.json"
        self.heads = self.state / "heads.json"
        self.history = self.state / "history"
        self.log_head = self.state / "log-head.json"
        self.key = self.state / "identity" / "coordinator.key"
        self.authority_key = self.state / "identity" / "ca.key"
        self.authority = self.state / "identity" / "ca.pem"
        self.authority_request = self.state / "identity" / "ca.csr"
        self.server_credentials = self.state / "identity" / "server.pem"
        self.operator_credentials = self.state / "identity" / "operator.pem"
        self.address = self.state / "address"
        self.join_address = self.state / "join-address"
