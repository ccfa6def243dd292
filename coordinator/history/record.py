"""A merge as the history shows it: one document with all that the view shows."""

from __future__ import annotations

from pydantic import Field

from rootstock.common.documents import Document
from rootstock.common.nets.graph import NetTree
from rootstock.common.nets.spec import Name, Setting
from rootstock.common.nets.tailored.paths import KeptPath
from rootstock.common.weights.manifest import Digest
from rootstock.coordinator.growth.candidates import Candidate
from rootstock.coordinator.growth.numbers import MergeNumbers
from rootstock.coordinator.jobs.feature_space import FeatureSpaces
from rootstock.coordinator.jobs.model import CurvePoint


class Join(Document):
    """A join of the net before a merge, which the merge leaves unchanged."""

    category: Name
    task: Name
    error: float | None = None
    """Percent on its lab's private validation data when it was merged."""
    teacher_error: float | None = None


class Tailored(Document):
    """A category module that is a backbone's of which some paths were kept (NetTailor)."""

    blocks: tuple[str, ...]
    """Names of the backbone's blocks up to the split, lowest first."""
    paths: tuple[KeptPath, ...]


class MergeRecord(Document):
    """One transplanting operation, whatever became of it."""

    net: Name
    merge_id: Name
    category: Name
    task: Name
    site: Name
    operation: str
    state: str
    """merged, rejected, failed or rolled_back."""
    reason: str = ""
    parent_number: int | None = Field(default=None, ge=0)
    """None for the merge that founds the net; the head of that time where nothing was merged."""
    parent_digest: Digest | None = None
    number: int | None = Field(default=None, ge=0)
    digest: Digest | None = None
    """The net version that this merge committed; None if it was not merged."""
    digests: dict[str, Digest] = Field(default_factory=dict)
    """Every digest that the merge rests on, by role ("category_module", "adapter", "manifest")."""
    adapter_uri: str | None = None
    candidate: Candidate | None = None
    """Which one was best; None joins two modules that were trained together."""
    parameters: dict[str, Setting] = Field(default_factory=dict)
    numbers: dict[str, float] = Field(default_factory=dict)
    """The flat form of `MergeNumbers`, and numbers of each stage's learning."""
    teacher_numbers: dict[str, float] = Field(default_factory=dict)
    """The metrics of the teacher net's manifest."""
    tailored: Tailored | None = None
    features: FeatureSpaces | None = None
    no_features: str = ""
    """Why there are none although the join is a transplanted classification."""
    curves: tuple[CurvePoint, ...] = ()
    created_at: str
    finished_at: str | None = None
    """ISO 8601 in UTC."""
    tree: NetTree | None = None
    """The net after the merge, or as it stayed; the picture is drawn from it."""
    earlier: tuple[Join, ...] = ()

    @property
    def measured(self) -> MergeNumbers:
        """The numbers by what they belong to."""
        return MergeNumbers.from_flat(self.numbers)

    @property
    def join(self) -> str:
        """What is joined, as people read it."""
        return f"{self.category} → {self.task}"

    @property
    def error(self) -> float | None:
        """Error of what was joined, or of the best candidate that was not, in percent."""
        if self.candidate is None and self.number is None:
            return None
        return self.measured.error_of(self.candidate)

    @property
    def tree_number(self) -> int | None:
        """Number of the net version that `tree` is."""
        return self.parent_number if self.number is None else self.number
