"""Documents that the database holds as JSON: what labs are told, asked, and answer.

Keys that another version of this program wrote besides are left out when they are read.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator

from rootstock.common.documents import Document
from rootstock.common.nets.calibration import Calibration
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, Name
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.states import MergeState, SubmissionState


@dataclasses.dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append: for one site, or for all when `site` is None."""

    site: str | None
    kind: str
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """An appended event; `cursor` grows in the order of commits."""

    cursor: int
    site: str | None
    kind: str
    payload: bytes


class News(Document):
    """What a site hears of on its watch stream."""

    model_config = ConfigDict(extra="ignore")
    kind: ClassVar[str]

    def to(self, site: str | None) -> NewEvent:
        """Return the event that tells a site of it, or every site (None)."""
        return NewEvent(site, self.kind, self.canonical())


class SubmissionChanged(News):
    """A submission has come to another state."""

    kind = "submission"
    submission_id: str
    manifest_digest: str
    state: SubmissionState
    reason: str


class MergeChanged(News):
    """A merge has ended, or what it merged was rolled back."""

    kind = "merge"
    merge_id: str
    state: MergeState
    reason: str


class SamplesForgotten(News):
    """The samples that came with a submission are deleted."""

    kind = "samples"
    submission_id: str
    count: int


class VersionCommitted(News):
    """There is a new net version, which joins a category to a task."""

    kind = "version"
    number: int
    digest: str
    category: str
    task: str


class HeadsChanged(News):
    """Auxiliary heads were published or replaced; number 0: they were retired."""

    kind = "heads"
    number: int
    origin: str


class RestQuestion(Document):
    """What makes an evaluation request one to a witness: the join is another lab's.

    The witness answers how often it says yes on images that do not show its category.
    """

    category: Name
    category_module: BlobEntry
    """f, and its architecture."""
    architecture: ArchitectureSpec
    calibration: Calibration


class EvaluationRequest(News):
    """What a lab is asked about a merge's candidates: the owning one, or a witness."""

    kind = "evaluation"
    evaluation_id: str
    merge_id: str
    manifest_digest: str
    """The teacher whose category module is joined."""
    task: str
    architecture: ArchitectureSpec
    task_module: BlobEntry
    """g_S, and the architecture that it belongs to."""
    candidates: dict[Candidate, AdapterEntry | None]
    """Simplest first; None joins f and g_S directly."""
    refinement_spec: AdapterSpec | None = None
    """The structure of the adapter that the lab is to refine; None: it is not asked to."""
    rest: RestQuestion | None = Field(default=None, exclude_if=lambda rest: rest is None)
    """Of a witness alone."""

    @field_validator("candidates")
    @classmethod
    def _simplest_first(
        cls, candidates: dict[Candidate, AdapterEntry | None]
    ) -> dict[Candidate, AdapterEntry | None]:
        return {each: candidates[each] for each in Candidate if each in candidates}

    def digests(self) -> set[str]:
        """Return the blobs that the lab needs to answer: modules that it has not, and adapters."""
        adapters = [entry.blob for entry in self.candidates.values() if entry is not None]
        modules = [] if self.rest is None else [self.rest.category_module]
        return {blob.digest for blob in (self.task_module, *modules, *adapters)}


NEWS: dict[str, type[News]] = {
    each.kind: each
    for each in (
        SubmissionChanged,
        MergeChanged,
        SamplesForgotten,
        VersionCommitted,
        HeadsChanged,
        EvaluationRequest,
    )
}


def news_of(event: Event) -> News:
    """Return what an event tells."""
    return NEWS[event.kind].parse(event.payload, what=f"{event.kind} event {event.cursor}")


class _Reported(Document):
    """Numbers as a lab reports them: `coordinator.service.reports` checks their ranges."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)


class ReportedCalibration(_Reported):
    """A calibration of a candidate's output, and how the candidate did with it."""

    scale: float
    bias: float
    error: float
    """Percent."""
    mean_iou: float | None = None
    """Percent; of a segmentation only."""


class ReportedResult(_Reported):
    """How one candidate did on the lab's private validation data."""

    name: str
    error: float
    """Percent, without a calibration."""
    samples: int
    mean_iou: float | None = None
    calibration: ReportedCalibration | None = None
    """None leaves the output as it is."""


class ReportedRefinement(_Reported):
    """An adapter that the lab refined, and how it did."""

    manifest_digest: str
    """Empty if it could not be uploaded: it counts as not refined."""
    error: float
    mean_iou: float | None = None
    calibration: ReportedCalibration | None = None
    seconds: float
    steps: int


class ReportedRest(_Reported):
    """What a witness saw."""

    yes: float
    """Percent of the images that do not show the category."""
    samples: int


class EvaluationReport(_Reported):
    """What a lab answers to an evaluation request."""

    evaluation_id: str
    results: tuple[ReportedResult, ...] = ()
    refinement: ReportedRefinement | None = None
    rest: ReportedRest | None = Field(default=None, exclude_if=lambda rest: rest is None)
    """Of a witness alone."""
    failure: str = ""
    """Why it could not be evaluated; empty: it could."""

    @property
    def refined(self) -> ReportedRefinement | None:
        """The refined adapter, if it was uploaded."""
        return self.refinement if self.refinement and self.refinement.manifest_digest else None
