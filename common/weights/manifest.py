"""Manifests: what a signed upload says about every tensor in it, before a byte of it is read."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, TypeAdapter, model_validator

from rootstock.common.documents import Document, schema_errors
from rootstock.common.errors import SchemaError
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, Name, Setting

MAX_MANIFEST_BYTES = 256 << 10
"""A manifest names tensors, it holds none: VGG-16's has 6 KB. This allows 1,500 tensors."""

MAX_MANIFEST_VALUES = 20_000
"""JSON values: eight a tensor. Of what is no manifest, the validator makes an error a value."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TensorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-/]{1,200}$")]
Dtype = Literal["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"]
Metric = Annotated[float, Field(ge=-1e12, le=1e12)]


class TensorEntry(Document):
    """One tensor of a blob: safetensors dtype, shape, SHA-256 of its raw bytes."""

    dtype: Dtype
    shape: tuple[Annotated[int, Field(ge=0, le=1 << 31)], ...] = Field(max_length=8)
    sha256: Digest


class BlobEntry(Document):
    """A safetensors file: its SHA-256, its size in bytes, and what it holds."""

    digest: Digest
    size: int = Field(ge=8)
    tensors: dict[TensorName, TensorEntry] = Field(max_length=4096)


class AdapterEntry(Document):
    """An adapter as a manifest and a tree name it."""

    spec: AdapterSpec
    blob: BlobEntry


class SharedSamples(Document):
    """Images that a lab's operator gave: `images` (N,C,H,W) F32, `labels` (N) F32.

    If one of the teacher's tasks labels pixels also `masks` (N,H,W) U8: 1 the category, 0 the rest,
    255 no label.
    """

    count: int = Field(ge=1, le=10_000)
    blob: BlobEntry


class Recipe(Document):
    """How a teacher net was trained."""

    name: Name
    settings: dict[str, Setting] = Field(default_factory=dict, max_length=64)


class TeacherManifest(Document):
    """A teacher net (g_T∘f) as a lab ships it."""

    kind: Literal["teacher"] = "teacher"
    format: Literal[1] = 1
    site: Name
    category: Name
    architecture: ArchitectureSpec
    category_module: BlobEntry
    task_modules: dict[Name, BlobEntry] = Field(min_length=1, max_length=16)
    metrics: dict[str, Metric] = Field(default_factory=dict, max_length=64)
    """Numbers on private validation data. `error/<task>` is the error in percent (required per
    task module), of a segmentation 100 − pixel accuracy; `mean_iou/<task>` is its mean IoU in
    percent; `samples/validation` and `samples/training` the counts they rest on."""
    recipe: Recipe
    software: dict[str, str] = Field(default_factory=dict, max_length=16)
    plan: Digest
    heads: Digest | None = Field(default=None, exclude_if=lambda heads: heads is None)
    """Digest of the auxiliary heads that it was trained below, if any. Not written without:
    manifests from before keep their digests."""
    statistics: BlobEntry | None = None
    """Named statistics, each F32: `feature_norm` (1), E‖f(I)‖_F over training images;
    `mean/<layer>` and `variance/<layer>` (C) of every conv output and of f's output, which is
    named by f's last layer; those of `common.nets.feature_moments`; each can be switched off. Each
    of one dimension has rows of salt below it, but from labs of before: `common.weights.salt`."""
    measured_task: Name | None = Field(default=None, exclude_if=lambda task: task is None)
    """Which task's layers the statistics hold, beside f's: task modules share their layers' names,
    so one is measured. Manifests without are from before it was written: see `measures`."""
    shared_samples: SharedSamples | None = None
    new_version: bool = Field(default=False, exclude_if=lambda wanted: not wanted)
    """Whether this teacher may stand beside one that the same lab brought of this category. Not
    written when it may not: manifests from before keep their digests."""

    @model_validator(mode="after")
    def _measures_a_task_of_its_own(self) -> Self:
        if self.measured_task is not None and self.measured_task not in self.task_modules:
            raise ValueError(
                f"measured_task '{self.measured_task}' is none of the teacher's tasks: "
                f"{', '.join(sorted(self.task_modules))}"
            )
        return self

    def measures(self, task: str) -> bool:
        """Say whether the statistics hold the layers of a task's module.

        Labs that do not say which task they measured measured the first by name.
        """
        return task == (self.measured_task or min(self.task_modules))

    def blobs(self) -> list[BlobEntry]:
        """Return every blob that the upload must have, category module first."""
        entries = [self.category_module, *self.task_modules.values()]
        if self.statistics is not None:
            entries.append(self.statistics)
        if self.shared_samples is not None:
            entries.append(self.shared_samples.blob)
        return entries


class RefinementManifest(Document):
    """An adapter that the owning lab refined on its private samples; nothing else travels."""

    kind: Literal["refinement"] = "refinement"
    format: Literal[1] = 1
    site: Name
    evaluation: Name
    """Id of the evaluation request that asked for it."""
    adapter: AdapterEntry
    software: dict[str, str] = Field(default_factory=dict, max_length=16)

    def blobs(self) -> list[BlobEntry]:
        """Return every blob that the upload must have."""
        return [self.adapter.blob]


Manifest = TeacherManifest | RefinementManifest
_ANY: TypeAdapter[Manifest] = TypeAdapter(Annotated[Manifest, Field(discriminator="kind")])


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest of either kind, capped in size."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise SchemaError(
            f"the manifest has {len(data)} bytes, the limit is {MAX_MANIFEST_BYTES}; "
            "a manifest names tensors and holds none"
        )
    values = sum(data.count(sign) for sign in (b",", b"[", b"{"))
    if values > MAX_MANIFEST_VALUES:
        raise SchemaError(
            f"the manifest holds {values} values, the limit is {MAX_MANIFEST_VALUES}: it is none"
        )
    with schema_errors("manifest"):
        return _ANY.validate_json(data)
