"""How a merge joins its modules: what was decided, or what the operator learned beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import Name
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import CandidateResult, MergeNumbers
from rootstock.coordinator.registry import Submission

COORDINATOR = "coordinator"
"""The name under which the coordinator signs what it learns; no lab may join with it."""


def of_labs(submissions: Iterable[Submission]) -> list[Submission]:
    """Leave out the coordinator's own submissions: whoever signs one queues what it is for."""
    return [each for each in submissions if each.site != COORDINATOR]


@dataclass(frozen=True)
class AcceptedJoin:
    """How a merge joins its modules; by default as they came: they were trained together."""

    candidate: Candidate | None = None
    adapter: AdapterEntry | None = None
    calibration: Calibration = field(default_factory=Calibration)


class OperatorJoin(Document):
    """A join that was learned on the operator's own samples; a merge keeps it until its commit."""

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
        """Return what was measured of it."""
        return MergeNumbers(
            candidates={Candidate.OWN_SAMPLES: CandidateResult(self.error)},
            learned_from=float(self.learned_from),
            judged_on=float(self.judged_on),
        )

    def join(self) -> AcceptedJoin:
        """Return how it is committed."""
        return AcceptedJoin(candidate=Candidate.OWN_SAMPLES, adapter=self.adapter)


class LearnedTask(Document):
    """A new task module, and how each category that it was learned on is joined to it."""

    blob: BlobEntry
    joins: dict[Name, OperatorJoin] = Field(min_length=1)
    """By category, in the order in which they are merged."""
