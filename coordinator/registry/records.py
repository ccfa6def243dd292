"""What the registry answers with: frozen records, free of the database they came from."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeVar

from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.growth.operations import OperationKind
from rootstock.coordinator.growth.states import MergeState, SubmissionState
from rootstock.coordinator.registry.documents import EvaluationReport, EvaluationRequest

R = TypeVar("R")

Decision = Literal["approve", "reject"]


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A lab: its name and the Ed25519 public key (32 raw bytes) that the name is bound to."""

    name: str
    public_key: bytes
    joined_at: float
    disabled_at: float | None
    disabled_reason: str | None


class Access(StrEnum):
    """What a member may call: a site the federation's service, an operator its own."""

    SITE = "site"
    VIEW = "view"
    """Look."""
    DECIDE = "decide"
    """Look, and decide on merges."""
    ADMIN = "admin"
    """Everything."""


@dataclasses.dataclass(frozen=True, slots=True)
class Invitation:
    """Leave to join once, under one name."""

    id: str
    name: str
    access: Access
    again: bool
    """Whether it replaces what a member of that name has: certificates and signing key."""
    created_at: float
    expires_at: float
    failures: int
    used_at: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that was issued; the serial number is in hex."""

    serial: str
    name: str
    access: Access
    issued_at: float
    expires_at: float
    revoked_at: float | None
    reason: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Receipt:
    """The coordinator's signed word that an upload is durable.

    The signature is over "manifest_digest subject received_at", in UTF-8.
    """

    manifest_digest: str
    subject: str
    received_at: str
    signature: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """A manifest that a site began to ship, of either kind.

    `id` is "sub-0001" for a teacher net (then a submission has the same id) and "ref-0001" for
    a refined adapter, whose `evaluation_id` names the request it answers.
    """

    id: str
    site: str
    kind: str
    manifest_digest: str
    manifest: bytes
    signature: bytes
    evaluation_id: str | None
    created_at: float
    touched_at: float
    receipt: Receipt | None


@dataclasses.dataclass(frozen=True, slots=True)
class UploadReferences:
    """The digests that an upload refers to in the store."""

    id: str
    evaluation_id: str | None
    state: SubmissionState | None
    """The submission's; None for a refined adapter."""
    open: bool
    """Whether it has no receipt yet, and something has touched it within its lease."""
    manifest: str
    signature: str
    blobs: frozenset[str]
    """Shared samples included, which lie in the submission's area."""


class HeldAt(NamedTuple):
    """Where the coordinator has the bytes of a tensor: a blob of the store, and its name there."""

    blob: str
    tensor: str


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """A teacher net on its way: receiving → received → admitted | refused."""

    id: str
    site: str
    category: str
    manifest_digest: str
    manifest: bytes
    signature: bytes
    state: SubmissionState
    reason: str
    created_at: float
    updated_at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Merge:
    """One transplanting operation; times are seconds since the epoch."""

    id: str
    submission_id: str
    category: str
    task: str
    operation: OperationKind
    void: bool
    """Whether the net that it was judged by was rolled back: its submission is decided about
    anew."""
    state: MergeState
    reason: str
    numbers: MergeNumbers
    job_result: dict[str, Any] | None
    inspection: dict[str, Any] | None
    step: int
    steps: int
    parent_version: int | None
    net_version: int | None
    candidate: Candidate | None
    released: bool
    """False holds a queued merge until the operator lets the net grow."""
    decision: Decision | None
    decision_reason: str | None
    logged: bool
    created_at: float
    updated_at: float
    started_at: float | None
    finished_at: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What the owning lab was asked about a merge's candidates, and its answer."""

    id: str
    merge_id: str
    site: str
    request: EvaluationRequest
    report: EvaluationReport | None
    requested_at: float
    reported_at: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class NetVersion:
    """An immutable state of the transplant net; `digest` is its commit's, `tree` its tree's."""

    number: int
    digest: str
    tree: str
    parent: int | None
    merge_id: str
    created_at: float
    rolled_back_at: float | None


def record(kind: type[R], row: object) -> R:
    """Copy the attributes that a record names from a database row."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(row, name) for name in names})
