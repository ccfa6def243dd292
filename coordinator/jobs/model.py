"""The documents that a back-distillation job takes and returns. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from rootstock.common.documents import Document
from rootstock.common.nets.spec import ArchitectureSpec, Name, Setting, TaskSpec
from rootstock.common.weights.manifest import AdapterEntry, BlobEntry, Digest
from rootstock.coordinator.config import DistillationConfig
from rootstock.coordinator.growth.candidates import Candidate

Stage = Literal["zero-sample", "few-sample"]
"""zero-sample: from weights and statistics. few-sample: with the images that a lab shared, too."""


class TransplantJob(Document):
    """One transplant: join a category module f to the student task module g_S."""

    merge_id: Name
    """Keys the job's checkpoints, so that a second attempt goes on from the first one's."""
    task: TaskSpec
    teacher_architecture: ArchitectureSpec
    student_architecture: ArchitectureSpec
    category_module: BlobEntry
    teacher_task_module: BlobEntry
    student_task_module: BlobEntry
    submission_id: Name
    samples: BlobEntry | None = None
    """The samples that the lab shared, in its submission's area; see `SharedSamples`."""
    own_samples: BlobEntry | None = None
    """The operator's, in the job's area; without either there is no few-sample stage."""
    teacher_statistics: BlobEntry | None = None
    student_statistics: BlobEntry | None = None
    """Names of tensors: see `TeacherManifest.statistics`."""
    task_measured: bool = True
    """Whether the teacher's statistics include this task module's layers: a lab with more tasks
    measures the first."""
    settings: DistillationConfig = DistillationConfig()
    artifacts: str
    """URI of the store of blobs, adapters and checkpoints."""
    cache: str | None = None
    """Folder for local copies of a remote store's blobs; a folder store needs none."""
    checkpoint_steps: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _remote_stores_need_a_cache(self) -> Self:
        if self.cache is None and self.artifacts.startswith("s3:"):
            raise ValueError(f"artifacts = {self.artifacts!r} is remote: set cache to a folder")
        return self


class Progress(Document):
    """How far a job is after a call of `TransplantWorker.advance`."""

    stage: Stage
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    """Steps of this stage; a method that takes none counts as one."""
    done: bool
    """Whether the whole job is done, not the stage alone."""


class CurvePoint(Document):
    """Losses of one step of one stage."""

    model_config = ConfigDict(extra="ignore")

    stage: str
    step: int = Field(ge=0)
    loss: float
    task_loss: float
    distillation_loss: float


class JobResult(Document):
    """The adapters that a job learned, each already in the store.

    A merge keeps it for good. What another version of this program wrote besides is left out.
    """

    model_config = ConfigDict(extra="ignore")

    kind: Literal["learned"] = "learned"
    format: int = Field(default=1, ge=1)
    """Raised when a key changes its meaning."""
    closed_form: AdapterEntry | None = None
    """The least-squares solution, where a merge takes the first candidate that is good enough."""
    zero_sample: AdapterEntry | None = None
    """None while only the closed form was asked for."""
    few_sample: AdapterEntry | None = None
    student_task_module: Digest
    """The g_S that the adapters were learned for: they fit no other."""
    curves: tuple[CurvePoint, ...]
    seconds: dict[str, float]
    """By stage, restarts not counted."""
    report: dict[str, float]
    """`solver/…`: the scales; `<stage>/…`: numbers of the stage's learning."""
    methods: dict[Stage, str] = Field(default_factory=dict)
    fallbacks: dict[Stage, str] = Field(default_factory=dict)
    """Why a stage's method was given up for another; empty where none was."""
    without: dict[Stage, str] = Field(default_factory=dict, exclude_if=lambda given: not given)
    """What a stage's method did without, and why; empty where there was nothing."""
    turn: int = Field(default=1, ge=1)
    """Number of the evaluation that the lab is asked for, of those of this merge."""
    settings: dict[str, Setting]
    """Settings by dotted name. Not a configuration: a later version may have lost a key, or its
    meaning."""

    def adapters(self) -> dict[Candidate, AdapterEntry]:
        """Return what was learned, simplest first."""
        named = {
            Candidate.CLOSED_FORM: self.closed_form,
            Candidate.ZERO_SAMPLE: self.zero_sample,
            Candidate.FEW_SAMPLE: self.few_sample,
        }
        return {name: adapter for name, adapter in named.items() if adapter is not None}

    def closed_form_only(self) -> JobResult:
        """Return the zero-sample adapter of a job that only solved as the closed-form one."""
        return self.model_copy(
            update={
                "closed_form": self.zero_sample,
                "zero_sample": None,
                "methods": {},
                "seconds": {"closed-form": sum(self.seconds.values())},
            }
        )

    def after(self, earlier: JobResult) -> JobResult:
        """Return what was learned once the closed form alone was not good enough."""
        return self.model_copy(
            update={
                "closed_form": earlier.closed_form,
                "seconds": {**earlier.seconds, **self.seconds},
                "turn": earlier.turn + 1,
            }
        )

    def learned_by(self) -> dict[str, str]:
        """Return the stages' methods, and what failed in them, as a merge's record names them."""
        words = {f"{stage}_method": method for stage, method in self.methods.items()}
        words |= {f"{stage}_fallback": reason for stage, reason in self.fallbacks.items()}
        words |= {f"{stage}_without": reason for stage, reason in self.without.items()}
        return {key.replace("-", "_"): word for key, word in words.items()}


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Return nested settings by dotted name, without those that are not set."""
    flat: dict[str, Setting] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat
