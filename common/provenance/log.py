"""Entries of a net's log, and its head: how many there are, and the root of their Merkle tree."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rootstock.common import times
from rootstock.common.documents import Document
from rootstock.common.errors import IntegrityError, SchemaError
from rootstock.common.identity.keys import SigningKey, key_id
from rootstock.common.provenance.envelope import Envelope, seal
from rootstock.common.weights.manifest import Digest

HEAD_TYPE = "application/vnd.rootstock.log-head+json"

MAX_HEAD_BYTES = 4096

Moment = Annotated[str, AfterValidator(times.checked)]


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


SAID_ONCE = frozenset({LogKind.FORMER_KEY, LogKind.RECEIVED, LogKind.QUESTION, LogKind.REPORT})
"""Kinds of which each subject has one entry: what it says never changes."""


class LogEntry(Document):
    """One change of what makes the net what it is."""

    index: int = Field(ge=0)
    kind: LogKind
    subject: str
    """Id of what changed: a site's name, an upload, a merge, a version's number."""
    by: str
    """Whose call changed it: "site/NAME", "operator/NAME", "coordinator"; "upgrade" for what there
    was before there was a log."""
    at: Moment
    """RFC 3339, in UTC."""
    facts: dict[str, Any]
    """All that is recorded of the subject from now on: JSON values by name."""


class LogHead(Document):
    """The state of a log: whoever knows a head can tell whether a later one continues it."""

    size: int = Field(ge=0, lt=1 << 63)
    root: Digest
    """Of the Merkle tree of RFC 9162 over the canonical form of the entries."""
    at: Moment
    """When it was signed, RFC 3339 in UTC."""
    net: Digest
    """SHA-256 of the coordinator's public key."""

    def sealed(self, key: SigningKey) -> bytes:
        """Return the head in an envelope that the coordinator has signed, as canonical JSON."""
        return seal(key, HEAD_TYPE, self.canonical()).canonical()


def opened_head(data: bytes, coordinator: bytes, *, what: str = "the log's head") -> LogHead:
    """Read a head that a coordinator with that public key has signed as its net's.

    RefusedError if it is none.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise SchemaError(f"{what} has {len(data)} bytes, the limit is {MAX_HEAD_BYTES}")
    payload = Envelope.parse(data, what=what).opened(coordinator, HEAD_TYPE, what=what)
    head = LogHead.parse(payload, what=what)
    if head.net != key_id(coordinator):
        raise IntegrityError(f"{what} is of net {head.net[:16]}, not of {key_id(coordinator)[:16]}")
    return head
