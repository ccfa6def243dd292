"""Results of learning, by a job or by the operator beforehand, that a merge may join with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from rootstock.common.documents import Document, first_problem
from rootstock.common.errors import SchemaError
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import Name
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers
from rootstock.coordinator.jobs.model import JobResult, flat_settings
from rootstock.coordinator.registry import COORDINATOR, Merge, Submission


def of_labs(submissions: Iterable[Submission]) -> list[Submission]:
    """Leave out the coordinator's own submissions: whoever signs one queues what it is for."""
    return [each for each in submissions if each.site != COORDINATOR]


class OperatorJoin(Document):
    """A join that was learned on the operator's own samples, before its merge was queued.

    A merge keeps it for good. What another version of this program wrote besides is left out.
    """

    model_config = ConfigDict(extra="ignore")

    kind: Literal["operator"] = "operator"
    format: int = Field(default=1, ge=1)
    """Raised when a key changes its meaning."""
    task_module: Digest
    """What it was learned for: an adapter fits no other."""
    adapter: AdapterEntry | None
    """None joins the two directly."""
    how: str
    """Where the adapter comes from: no adapter, another task's, or learned."""
    error: float = Field(ge=0, le=100)
    """Percent, on the samples that judged."""
    submission: Digest | None = None
    """The manifest that brings the task module, where the merge's own submission does not."""
    learned_from: int = Field(ge=0)
    judged_on: int = Field(ge=1)
    """Numbers of the operator's samples."""

    def numbers(self) -> MergeNumbers:
        """Return the numbers of its merge."""
        return MergeNumbers(
            candidates={Candidate.OWN_SAMPLES: CandidateResult(self.error)},
            learned_from=float(self.learned_from),
            judged_on=float(self.judged_on),
        )


MergeResult = JobResult | OperatorJoin
_RESULT: TypeAdapter[MergeResult] = TypeAdapter(Annotated[MergeResult, Field(discriminator="kind")])


def stored_result(merge: Merge) -> MergeResult | None:
    """Return what was learned for a merge; None where nothing was, or not yet.

    SchemaError if this version cannot read it.
    """
    if merge.job_result is None:
        return None
    try:
        return _RESULT.validate_python(_upgraded(merge.job_result))
    except ValidationError as error:
        raise SchemaError(
            f"merge {merge.id}: this version cannot read what was learned for it: "
            f"{first_problem(error)}; run the version that learned it, or reject the merge and "
            "have the lab ship again"
        ) from error


def _upgraded(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the present form of a result.

    Format 0 named neither its kind nor its format, and embedded a job's whole configuration.
    """
    if "kind" in stored:
        return stored
    if "how" in stored:
        return {**stored, "kind": "operator"}
    return {**stored, "kind": "learned", "settings": flat_settings(stored["settings"])}


@dataclass(frozen=True)
class AcceptedJoin:
    """How a merge joins its modules; by default as they came: they were trained together."""

    candidate: Candidate | None = None
    adapter: AdapterEntry | None = None
    calibration: Calibration = Calibration()  # noqa: RUF009  # frozen
    result: MergeResult | None = None
    """Where the adapter comes from, if anything was learned."""


class LearnedTask(Document):
    """A new task module, and how each category that it was learned on is joined to it."""

    blob: BlobEntry
    joins: dict[Name, OperatorJoin] = Field(min_length=1)
    """By category, in the order in which they are merged."""
