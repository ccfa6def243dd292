"""Domain ⇄ protobuf: receipts, events, evaluation requests and reports, every field checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from google.protobuf.message import DecodeError
from pydantic import Field

from rootstock.common.documents import Document, schema_errors
from rootstock.common.errors import IntegrityError, LimitError, SchemaError
from rootstock.common.identity import keys
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, Name
from rootstock.common.text import one_line
from rootstock.common.transport.question import question_bytes
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb
from rootstock.site_agent.spool.documents import EvaluationReport, SignedReceipt

MAX_CANDIDATES = 16
"""Three are usual: no adapter, zero-sample, few-sample."""


class RestQuestion(Document):
    """What a witness is asked about besides the join's task module and adapter."""

    category: Name
    category_module: BlobEntry
    architecture: ArchitectureSpec
    calibration: Calibration


class EvaluationRequest(Document):
    """What the coordinator asks the owning lab to measure, or a witness."""

    evaluation_id: Name
    merge_id: Name
    manifest_digest: Digest
    """Names the teacher whose category module is joined."""
    task: Name
    architecture: ArchitectureSpec
    """The net that g_S, the transplant net's task module, is the top of."""
    task_module: BlobEntry
    """g_S."""
    candidates: dict[Name, AdapterEntry | None] = Field(min_length=1)
    """Adapters by name; None joins f and g_S directly."""
    refinement_spec: AdapterSpec | None
    """The structure that a refined adapter must have; None: none is wanted."""
    expires_at: int = Field(ge=0, lt=1 << 33)
    """Seconds since 1970."""
    rest: RestQuestion | None = None
    """Set if the join is another lab's."""


@dataclass(frozen=True)
class EvaluationAsked:
    """The event of an evaluation request, which is not read yet."""

    evaluation_id: str
    _message: pb.EvaluationRequest

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what `serialized` returned, from a lab's disk; SchemaError if that is damaged."""
        try:
            message = pb.EvaluationRequest.FromString(data)
        except DecodeError as error:
            raise SchemaError(
                f"the question's {len(data)} bytes are no message: {error}"
            ) from error
        return cls(message.evaluation_id, message)

    def serialized(self) -> bytes:
        """Return the message's bytes."""
        return self._message.SerializeToString()

    def verify(self, site: str, coordinator_key: bytes) -> None:
        """Raise IntegrityError unless the coordinator of that key asks it of this site."""
        if not self._message.signature:
            raise IntegrityError(
                "the question is not signed at all, and a lab answers none that is not: this "
                "version of the coordinator signs no questions; update it"
            )
        signed = question_bytes(self._message, site)
        try:
            keys.verify(coordinator_key, self._message.signature, signed, what="the question")
        except IntegrityError as error:
            raise IntegrityError(
                f"the question is not signed for site '{site}' by key "
                f"{keys.fingerprint(coordinator_key)}, the coordinator's; join it again if it was "
                "set up anew"
            ) from error

    def read(self) -> EvaluationRequest:
        """Return the request; SchemaError or LimitError says what is wrong with it."""
        message = self._message
        names = [candidate.name for candidate in message.candidates]
        if len(names) > MAX_CANDIDATES or len(set(names)) != len(names):
            raise LimitError(
                f"the evaluation request has {len(names)} candidates; at most {MAX_CANDIDATES} "
                "are evaluated, each once"
            )
        spec = None
        if message.refine:
            spec = AdapterSpec.parse(message.refinement_spec, what="refinement's adapter")
        architecture = ArchitectureSpec.parse(
            message.architecture, what="task module's architecture"
        )
        task_module = BlobEntry.parse(message.task_module, what="task module's entry")
        adapters = {
            candidate.name: AdapterEntry.parse(candidate.adapter, what="candidate's adapter")
            if candidate.adapter
            else None
            for candidate in message.candidates
        }
        with schema_errors("evaluation request"):
            return EvaluationRequest(
                evaluation_id=message.evaluation_id,
                merge_id=message.merge_id,
                manifest_digest=message.manifest_digest,
                task=message.task,
                architecture=architecture,
                task_module=task_module,
                candidates=adapters,
                refinement_spec=spec,
                expires_at=message.expires_at,
                rest=_rest(message.rest) if message.HasField("rest") else None,
            )


def _rest(message: pb.RestQuestion) -> RestQuestion:
    return RestQuestion(
        category=message.category,
        category_module=BlobEntry.parse(message.category_module, what="category module's entry"),
        architecture=ArchitectureSpec.parse(
            message.architecture, what="category module's architecture"
        ),
        calibration=Calibration(scale=message.scale, bias=message.bias),
    )


@dataclass(frozen=True)
class Superseded:
    """A newer process watches with the same key."""

    instance: str


@dataclass(frozen=True)
class Reopened:
    """The watch stream is open after a break or a try that failed: much may have changed."""


@dataclass(frozen=True)
class SubmissionChanged:
    """A submission has another state."""

    submission_id: str
    state: str
    reason: str


@dataclass(frozen=True)
class MergeChanged:
    """A merge has another state."""

    merge_id: str
    state: str
    reason: str


@dataclass(frozen=True)
class SamplesForgotten:
    """The coordinator has deleted the samples that came with a submission."""

    submission_id: str
    count: int


@dataclass(frozen=True)
class HeadsChanged:
    """Auxiliary heads were published, replaced or, with number 0, retired."""

    number: int
    origin: str


@dataclass(frozen=True)
class VersionCommitted:
    """The net has a new version."""

    number: int
    digest: str
    category: str
    task: str


Event = (
    EvaluationAsked
    | Superseded
    | Reopened
    | SubmissionChanged
    | MergeChanged
    | SamplesForgotten
    | HeadsChanged
    | VersionCommitted
)

_PLAIN: dict[str, Any] = {
    "superseded": Superseded,
    "submission": SubmissionChanged,
    "merge": MergeChanged,
    "samples": SamplesForgotten,
    "heads": HeadsChanged,
    "version": VersionCommitted,
}


def event(message: pb.WatchResponse) -> Event | None:
    """Read an event of the watch stream; None for a heartbeat, and for what is not known here."""
    kind = message.WhichOneof("event")
    if kind == "evaluation":
        return EvaluationAsked(message.evaluation.evaluation_id, message.evaluation)
    if kind not in _PLAIN:
        return None
    body, made = getattr(message, kind), _PLAIN[kind]
    values = (getattr(body, field.name) for field in fields(made))
    # What the coordinator wrote is logged, and shown in a terminal.
    read: Event = made(*(one_line(each) if isinstance(each, str) else each for each in values))
    return read


def receipt(message: pb.Receipt) -> SignedReceipt:
    """Read a receipt, whose signature is still to be verified."""
    with schema_errors("receipt"):
        return SignedReceipt(
            manifest_digest=message.manifest_digest,
            submission_id=message.submission_id,
            received_at=message.received_at,
            signature=message.signature.hex(),
            head=message.head,
            entry=message.entry,
            inclusion=[each.hex() for each in message.inclusion],
        )


def report_request(report: EvaluationReport) -> pb.ReportEvaluationRequest:
    """Return a report as it is sent: the messages have the documents' fields, None is left out."""
    return pb.ReportEvaluationRequest(**report.model_dump())
