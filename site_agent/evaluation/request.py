"""An evaluation request as the agent works with it: every field checked and capped."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.errors import LimitError
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, Name
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.protos.rootstock.federation.v1 import federation_pb2 as pb

MAX_CANDIDATES = 16
"""Three are usual: no adapter, zero-sample, few-sample."""


class RequestHead(Document):
    """The request's names."""

    evaluation_id: Name
    merge_id: Name
    manifest_digest: Digest
    """Of the teacher whose category module is joined."""
    task: Name
    candidates: tuple[Name, ...] = Field(min_length=1, max_length=MAX_CANDIDATES)


@dataclass(frozen=True)
class Request:
    """What the coordinator asks the owning lab to measure.

    Attributes
    ----------
    head
        Names and ids.
    architecture, task_module
        Of g_S, the transplant net's task module.
    candidates
        Adapters by name; None joins f and g_S directly.
    refinement_spec
        The structure that a refined adapter must have; None: none is wanted.
    """

    head: RequestHead
    architecture: ArchitectureSpec
    task_module: BlobEntry
    candidates: dict[str, AdapterEntry | None]
    refinement_spec: AdapterSpec | None

    @classmethod
    def parse(cls, message: pb.EvaluationRequest) -> Request:
        """Read the wire's form.

        Raises
        ------
        SchemaError
            If a document in it is malformed.
        LimitError
            If it has more than `MAX_CANDIDATES` candidates, or one twice.
        """
        names = [candidate.name for candidate in message.candidates]
        if len(names) > MAX_CANDIDATES or len(set(names)) != len(names):
            raise LimitError(
                f"the evaluation request has {len(names)} candidates; at most {MAX_CANDIDATES} "
                "are evaluated, each once"
            )
        head = RequestHead.parse(
            RequestHead.model_construct(
                evaluation_id=message.evaluation_id,
                merge_id=message.merge_id,
                manifest_digest=message.manifest_digest,
                task=message.task,
                candidates=tuple(names),
            ).canonical(),
            what="evaluation request",
        )
        spec = None
        if message.refine:
            spec = AdapterSpec.parse(message.refinement_spec, what="refinement's adapter")
        return cls(
            head,
            ArchitectureSpec.parse(message.architecture, what="task module's architecture"),
            BlobEntry.parse(message.task_module, what="task module's entry"),
            {
                candidate.name: AdapterEntry.parse(candidate.adapter, what="candidate's adapter")
                if candidate.adapter
                else None
                for candidate in message.candidates
            },
            spec,
        )
