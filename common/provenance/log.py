"""Entries of a net's log, and its head: how many there are, and the root of their Merkle tree."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.weights.manifest import Digest


class LogKind(StrEnum):
    """What an entry records; with its subject's id it names what the entry is about."""

    SITE = "site"
    """A lab: its signing key, whether it is disabled."""
    FORMER_KEY = "former-key"
    """A signing key that a lab had before it joined again."""
    CERTIFICATE = "certificate"
    """A member's certificate was issued, or revoked."""
    RECEIVED = "received"
    """All of an upload is durable: the digest of its manifest, and who signed it."""
    SUBMISSION = "submission"
    """A teacher net was admitted or refused."""
    QUESTION = "question"
    """A lab was asked about a merge's candidates."""
    REPORT = "report"
    """What the lab answered."""
    DECISION = "decision"
    """What an operator decided about a merge."""
    MERGE = "merge"
    """A merge ended, or what it merged was rolled back: its numbers and its reason."""
    VERSION = "version"
    """A net version was committed, or rolled back."""
    HEAD = "head"
    """Which net version is the newest that stands."""


class LogEntry(Document):
    """One change of what makes the net what it is."""

    index: int = Field(ge=0)
    kind: LogKind
    subject: str
    """Id of what changed: a site's name, an upload, a merge, a version's number."""
    by: str
    """Whose call changed it: "site/NAME", "operator/NAME", "coordinator"; "upgrade" for what there
    was before there was a log."""
    at: str
    """RFC 3339, in UTC."""
    facts: dict[str, Any]
    """All that is recorded of the subject from now on: JSON values by name."""


class LogHead(Document):
    """The state of a log: whoever knows a head can tell whether a later one continues it."""

    size: int = Field(ge=0, lt=1 << 63)
    root: Digest
    """Of the Merkle tree of RFC 9162 over the canonical form of the entries."""
    at: str = Field(max_length=64)
    """When it was signed, RFC 3339 in UTC."""
    net: Digest
    """SHA-256 of the coordinator's public key."""
