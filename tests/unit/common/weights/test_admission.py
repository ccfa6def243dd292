"""The gate: an honest submission passes; each lie alone is refused by the check that names it."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from rootstock.common.errors import (
    IntegrityError,
    LimitError,
    NotFoundError,
    RefusedError,
    SchemaError,
)
from rootstock.common.nets import feature_moments
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    feature_shape,
    initial_modules,
)
from rootstock.common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from rootstock.common.protocol import Limits, Plan
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.admission import admit
from rootstock.common.weights.manifest import (
    AdapterEntry,
    BlobEntry,
    Recipe,
    RefinementManifest,
    SharedSamples,
    TeacherManifest,
)
from rootstock.common.weights.salt import salted
from tests.support.forged_blobs import change, change_tensor

ARCHITECTURE = ArchitectureSpec(name="small-vgg", settings={"width": 4}, split="pool1")
TASKS = (
    TaskSpec(name="classification"),
    TaskSpec(name="outline", kind="binary-segmentation"),
)
SAMPLES = 6

Tensors = dict[str, Tensor]


@dataclass
class Submission:
    """A lab's files, their manifest and the plan; `change` tells one lie."""

    folder: Path
    plan: Plan = field(init=False)
    manifest: TeacherManifest = field(init=False)
    paths: dict[str, Path] = field(default_factory=dict)

    def write(self, tensors: Tensors) -> BlobEntry:
        path = self.folder / f"blob{len(self.paths)}"
        entry = safetensors_io.write(path, tensors)
        self.paths[entry.digest] = path
        return entry

    def tensors(self, entry: BlobEntry) -> Tensors:
        return safetensors_io.read(self.paths[entry.digest], entry)

    def path_of(self, digest: str) -> Path:
        if digest not in self.paths:
            raise NotFoundError(f"no blob {digest}")
        return self.paths[digest]

    def change(self, **values: Any) -> None:
        self.manifest = TeacherManifest.model_validate({**self.manifest.model_dump(), **values})

    def change_blob(self, which: str, edit: Callable[[Tensors], object]) -> None:
        """Write other tensors, with an entry that describes them truthfully."""
        tensors = {k: v.clone() for k, v in self.tensors(self.blob(which)).items()}
        edit(tensors)
        self.change_entry(which, self.write(tensors))

    def blob(self, which: str) -> BlobEntry:
        if which == "task_modules":
            return self.manifest.task_modules["classification"]
        if which == "shared_samples":
            assert self.manifest.shared_samples is not None
            return self.manifest.shared_samples.blob
        entry: BlobEntry = getattr(self.manifest, which)
        return entry

    def change_entry(self, which: str, entry: BlobEntry) -> None:
        if which == "task_modules":
            self.change(task_modules={**self.manifest.task_modules, "classification": entry})
        elif which == "shared_samples":
            self.change(shared_samples={"count": SAMPLES, "blob": entry})
        else:
            self.change(**{which: entry})

    def admit(self) -> None:
        admit(self.manifest, self.plan, self.path_of)


def digits() -> tuple[Tensor, Tensor]:
    """Return six real images of 0 and 1, (6, 3, 32, 32), and their labels (0 is the category)."""
    data = load_digits()
    chosen = np.flatnonzero(data.target <= 1)[:SAMPLES]
    images = torch.tensor(data.images[chosen] / 16, dtype=torch.float32)[:, None]
    images = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear")
    labels = torch.tensor(data.target[chosen] == 0, dtype=torch.float32)
    return images.expand(-1, 3, -1, -1).contiguous(), labels


def outlines(images: Tensor) -> Tensor:
    """Return where the ink is, (6, 32, 32), with a rim that nobody labelled."""
    masks = (images[:, 0] > 0.3).to(torch.uint8)
    masks[:, :2] = 255
    return masks


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    category_module, task_modules = initial_modules(ARCHITECTURE, TASKS, seed=0)
    submission = Submission(tmp_path)
    category_entry = submission.write(category_module.state_dict())
    task_entries = {k: submission.write(m.state_dict()) for k, m in task_modules.items()}
    submission.plan = Plan(
        net="digits",
        architecture=ARCHITECTURE,
        tasks=TASKS,
        initial_category_module=category_entry,
        initial_task_modules=task_entries,
    )
    images, labels = digits()
    statistics = {
        "feature_norm": torch.tensor([3.0]),
        "mean/conv1_1": torch.randn(4),
        "variance/conv1_1": torch.rand(4),
        "mean/conv2_1": torch.randn(8),
    }
    submission.manifest = TeacherManifest(
        site="lab-0",
        category="zero",
        architecture=ARCHITECTURE,
        category_module=category_entry,
        task_modules=task_entries,
        metrics={
            "error/classification": 2.5,
            "error/outline": 100,
            "mean_iou/outline": 12.5,
            "samples/validation": 60,
            "loss/final": -0.25,
        },
        recipe=Recipe(name="supervised"),
        plan=submission.plan.content_digest(),
        statistics=submission.write(statistics),
        shared_samples=SharedSamples(
            count=SAMPLES,
            blob=submission.write({"images": images, "labels": labels, "masks": outlines(images)}),
        ),
    )
    return submission


def refused(submission: Submission, kind: type[RefusedError], rule: str) -> None:
    with pytest.raises(kind, match=rule):
        submission.admit()


def test_an_honest_submission_is_admitted(submission: Submission) -> None:
    submission.admit()


WIDER = {"name": "small-vgg", "split": "pool1", "settings": {"width": 6}}


def with_extractor(submission: Submission, extractor: dict[str, Any]) -> None:
    """Ship the plan's task modules above an f of another architecture."""
    spec = ARCHITECTURE.model_copy(update={"extractor": ArchitectureSpec.model_validate(extractor)})
    f = build_category_module(spec)
    submission.change(
        architecture=spec,
        category_module=submission.write(f.state_dict()),
        statistics=submission.write(
            {
                "mean/conv1_1": torch.randn(6),
                "variance/conv1_1": torch.rand(6),
                "mean/proj": torch.randn(4),
                "variance/proj": torch.rand(4),
                "mean/conv2_1": torch.randn(8),
            }
        ),
    )


def test_another_extractor_may_stand_below_the_plan_s_task_modules(submission: Submission) -> None:
    with_extractor(submission, WIDER)
    submission.admit()
    # It is held against its own layers: the plan's f does not pass for it.
    submission.change(category_module=submission.plan.initial_category_module)
    refused(submission, SchemaError, "^tensors: .*category module")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"extractor": {**WIDER, "extractor": WIDER}},
            "^architecture: extractor 'small-vgg', split 'pool1': has an extractor of its own",
        ),
        (
            {"extractor": {**WIDER, "split": "pool2"}},
            "^architecture: extractor .* maps of 8×8, at split 'pool1' .* they are 16×16",
        ),
        (
            {"extractor": {**WIDER, "settings": {"input_size": 64}}},
            r"^architecture: extractor .* takes images of \(3, 64, 64\)",
        ),
        ({"extractor": {**WIDER, "name": "resnet9"}}, "^architecture: unknown .*'resnet9'"),
        (
            {"settings": {"width": 8}, "extractor": WIDER},
            r"^plan: .*the teacher is \{.*\"width\":8.*\}, the plan asks for .*\"width\":4",
        ),
    ],
)
def test_an_extractor_that_does_not_fit_is_refused_and_says_why(
    submission: Submission, changes: dict[str, Any], rule: str
) -> None:
    with_extractor(submission, WIDER)
    submission.change(architecture={**submission.manifest.architecture.model_dump(), **changes})
    refused(submission, SchemaError, rule)


def test_statistics_and_samples_may_be_left_out(submission: Submission) -> None:
    submission.change(statistics=None, shared_samples=None)
    submission.admit()


def test_statistics_are_salted_or_of_before(submission: Submission) -> None:
    submission.change_blob(
        "statistics",
        lambda tensors: tensors.update({name: salted(each) for name, each in tensors.items()}),
    )
    submission.admit()


def moments(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {
        name: torch.eye(shape[0]) if len(shape) == 2 else torch.randn(shape)
        for name, shape in feature_moments.layout(feature_shape(ARCHITECTURE)).items()
    }
    return named | changes


def test_moments_of_the_features_may_come_along(submission: Submission) -> None:
    submission.change_blob("statistics", lambda tensors: tensors.update(moments()))
    submission.admit()


@pytest.mark.parametrize(
    ("spoilt", "rule"),
    [
        (moments(feature_rows=torch.eye(3)), "^tensors: .*'feature_rows' has shape"),
        (
            moments(feature_channels=-torch.eye(feature_shape(ARCHITECTURE)[0])),
            "^values: .*'feature_channels' is no covariance",
        ),
        (
            moments(feature_columns=torch.eye(16) + torch.eye(16).roll(1, 0)),
            "^values: .*'feature_columns' is no covariance: it is not symmetric",
        ),
        (
            moments(feature_mean=torch.full(feature_shape(ARCHITECTURE), torch.nan)),
            "^finite: .*'feature_mean'",
        ),
        ({"feature_depth": torch.eye(2)}, "^tensors: .*'feature_depth' has no place"),
    ],
)
def test_other_moments_are_refused(
    submission: Submission, spoilt: dict[str, torch.Tensor], rule: str
) -> None:
    submission.change_blob("statistics", lambda tensors: tensors.update(spoilt))
    refused(submission, RefusedError, rule)


def test_one_of_the_plans_tasks_is_enough(submission: Submission) -> None:
    submission.change(
        task_modules={"classification": submission.manifest.task_modules["classification"]},
        metrics={"error/classification": 0},
    )
    # A lab that labels no pixel has no masks to share.
    refused(submission, SchemaError, "^tensors: .*'masks' has no place")
    submission.change_blob("shared_samples", lambda tensors: tensors.pop("masks"))
    submission.admit()


@pytest.mark.parametrize(
    ("values", "kind", "rule"),
    [
        (
            {"architecture": {"name": "resnet9", "split": "pool1"}},
            SchemaError,
            r"^architecture: unknown architecture 'resnet9'; known architectures: small-vgg",
        ),
        (
            {"architecture": {"name": "small-vgg", "split": "pool9"}},
            SchemaError,
            "^architecture: .*no split point 'pool9'.*pool1, pool2",
        ),
        (
            {"architecture": {"name": "small-vgg", "split": "pool1", "settings": {"width": 1e9}}},
            SchemaError,
            "^architecture: .*width",
        ),
        (
            {"architecture": {"name": "small-vgg", "split": "pool1", "settings": {"width": 8}}},
            SchemaError,
            r'^plan: .*"width":8.*the plan asks for .*"width":4',
        ),
        (
            {"architecture": {**ARCHITECTURE.model_dump(), "split": "pool2"}},
            SchemaError,
            '^plan: .*"split":"pool2"',
        ),
        ({"metrics": {"error/outline": 1}}, SchemaError, "^metrics: 'error/classification' is mis"),
        (
            {"metrics": {"error/outline": 1, "error/classification": 100.5}},
            SchemaError,
            "^metrics: 'error/classification' = 100.5; an error is 0 to 100",
        ),
        (
            {
                "metrics": {
                    "error/outline": 0,
                    "error/classification": 1,
                    "mean_iou/outline": 100.5,
                }
            },
            SchemaError,
            "^metrics: 'mean_iou/outline' = 100.5; a mean IoU is 0 to 100",
        ),
        (
            {"metrics": {"error/outline": -0.1, "error/classification": 1}},
            SchemaError,
            "^metrics: 'error/outline' = -0.1",
        ),
        (
            {
                "metrics": {
                    "error/outline": 0,
                    "error/classification": 1,
                    "samples/validation": 1.5,
                }
            },
            SchemaError,
            "^metrics: 'samples/validation' = 1.5; a count",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_the_plan_is_refused(
    submission: Submission, values: dict[str, Any], kind: type[RefusedError], rule: str
) -> None:
    submission.change(**values)
    refused(submission, kind, rule)


def test_a_task_that_the_net_does_not_know_is_refused(submission: Submission) -> None:
    modules = {**submission.manifest.task_modules}
    submission.change(task_modules={**modules, "segmentation": modules["outline"]})
    refused(submission, SchemaError, "^task: the net has no task 'segmentation'; .*outline")


def test_sizes_are_capped_by_the_plan(submission: Submission) -> None:
    largest = max(entry.size for entry in submission.manifest.blobs())
    honest = submission.plan
    submission.plan = honest.model_copy(update={"limits": Limits(max_blob_bytes=largest)})
    submission.admit()
    submission.plan = honest.model_copy(update={"limits": Limits(max_blob_bytes=largest - 1)})
    refused(submission, LimitError, f"^size: .*{largest} bytes, the plan's limit is {largest - 1}")
    submission.plan = honest.model_copy(update={"limits": Limits(max_shared_samples=SAMPLES - 1)})
    refused(submission, LimitError, f"^size: {SAMPLES} shared samples, the plan's limit is 5")


@pytest.mark.parametrize(
    ("which", "what"),
    [("category_module", "category module"), ("task_modules", "task module 'classification'")],
)
def test_modules_hold_exactly_the_architectures_tensors(
    submission: Submission, which: str, what: str
) -> None:
    name = next(iter(submission.blob(which).tensors))
    honest = submission.manifest
    lies: list[tuple[Callable[[Tensors], object], str]] = [
        (lambda t: t.pop(name), f"^tensors: {what}: tensor '{name}' is missing"),
        (lambda t: t.update(more=torch.ones(1)), f"^tensors: {what}: tensor 'more' has no place"),
        (
            lambda t: t.update({name: t[name][:-1].clone()}),
            f"^tensors: {what}: tensor '{name}' has shape",
        ),
        (lambda t: t.update({name: t[name].double()}), f"^tensors: {what}: tensor '{name}' is F64"),
    ]
    for edit, rule in lies:
        submission.manifest = honest
        submission.change_blob(which, edit)
        refused(submission, SchemaError, rule)


BLOBS = ["category_module", "task_modules", "statistics", "shared_samples"]


@pytest.mark.parametrize("which", BLOBS)
def test_entries_that_lie_about_their_file_are_refused(submission: Submission, which: str) -> None:
    entry = submission.blob(which)
    name = next(iter(entry.tensors))
    honest = submission.manifest
    swapped = entry.tensors[name].model_dump() | {"dtype": "I32"}
    lies: list[tuple[BlobEntry, type[RefusedError], str]] = [
        (change(entry, size=entry.size - 1), SchemaError, f"^header: .*has {entry.size} bytes"),
        (change_tensor(entry, name, sha256="1" * 64), IntegrityError, f"^digest: .*'{name}'"),
        (change_tensor(entry, name, shape=[7]), SchemaError, f"^tensors: .*'{name}' has shape"),
        (change_tensor(entry, name, **swapped), SchemaError, f"^tensors: .*'{name}' is I32"),
    ]
    for lie, kind, rule in lies:
        submission.manifest = honest
        submission.change_entry(which, lie)
        refused(submission, kind, rule)
    submission.manifest = honest
    submission.admit()


@pytest.mark.parametrize("which", BLOBS)
def test_files_that_are_not_their_entry_are_refused(submission: Submission, which: str) -> None:
    entry = submission.blob(which)
    path = submission.paths[entry.digest]
    honest = path.read_bytes()
    path.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    refused(submission, IntegrityError, "^digest: ")
    path.write_bytes(honest[:-1])
    refused(submission, SchemaError, "^header: ")
    path.write_bytes(honest[:8] + b"[" + honest[9:])
    refused(submission, SchemaError, "^header: ")
    path.write_bytes((1 << 40).to_bytes(8, "little") + honest[8:])
    refused(submission, LimitError, "^header: ")
    path.write_bytes(honest)
    submission.admit()


def test_the_files_digest_covers_what_no_tensor_does(submission: Submission) -> None:
    entry = submission.manifest.category_module
    path = submission.paths[entry.digest]
    honest = path.read_bytes()
    # The header with one space moved: the same header, other bytes.
    end = 8 + int.from_bytes(honest[:8], "little")
    text = honest[8:end].rstrip(b" ")
    padded = text[:1] + b" " * (end - 8 - len(text)) + text[1:]
    assert padded != honest[8:end]
    path.write_bytes(honest[:8] + padded + honest[end:])
    refused(submission, IntegrityError, f"^digest: .*the manifest says {entry.digest}")


def test_a_blob_that_has_not_come_is_named(submission: Submission) -> None:
    del submission.paths[submission.blob("statistics").digest]
    refused(submission, SchemaError, "^blobs: statistics [0-9a-f]+ has not come")


@pytest.mark.parametrize("which", BLOBS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(
    submission: Submission, which: str, value: float
) -> None:
    def poison(tensors: Tensors) -> None:
        next(iter(tensors.values())).view(-1)[-1] = value

    submission.change_blob(which, poison)
    refused(submission, SchemaError, "^finite: .* holds 1 numbers that are NaN or Inf")


@pytest.mark.parametrize("which", BLOBS)
def test_norms_are_capped(submission: Submission, which: str) -> None:
    def blow_up(tensors: Tensors) -> None:
        next(iter(tensors.values())).view(-1)[0] = 1.1e6

    submission.change_blob(which, blow_up)
    refused(submission, LimitError, r"^norm: .* has norm 1.1e\+06, the limit is 1e\+06")


def test_the_norm_of_the_largest_float32_numbers_does_not_overflow(submission: Submission) -> None:
    submission.change_blob("category_module", lambda t: t["conv1_1.weight"].fill_(3.4e38))
    refused(submission, LimitError, "^norm: ")


def with_value(value: int) -> Tensor:
    """Return masks that are sound but for one pixel."""
    masks = outlines(digits()[0])
    masks[3, 9, 9] = value
    return masks


def test_a_task_that_labels_pixels_shares_its_masks(submission: Submission) -> None:
    submission.change_blob("shared_samples", lambda tensors: tensors.pop("masks"))
    refused(submission, SchemaError, "^tensors: shared samples: tensor 'masks' is missing")


@pytest.mark.parametrize(
    ("which", "edit", "rule"),
    [
        ("statistics", {"variance/conv1_1": torch.tensor([1, 1, -1e-6, 1])}, "^values: .*variance"),
        ("statistics", {"feature_norm": torch.tensor([0.0])}, "^values: .*feature_norm"),
        ("statistics", {"feature_norm": torch.ones(2)}, "^tensors: .*'feature_norm' has shape"),
        ("statistics", {"feature_norm": torch.ones(2, 1)}, "^tensors: .*'feature_norm' has shape"),
        ("statistics", {"mean/conv1_1": torch.ones(5)}, "^tensors: .*'mean/conv1_1' has shape"),
        ("statistics", {"mean/conv9_9": torch.ones(4)}, "^tensors: .*'mean/conv9_9' has no place"),
        ("statistics", {"faces": torch.ones(4)}, "^tensors: .*'faces' has no place"),
        ("shared_samples", {"labels": torch.full((SAMPLES,), 2.0)}, "^values: .*'labels'"),
        ("shared_samples", {"labels": torch.ones(SAMPLES - 1)}, "^tensors: .*'labels' has shape"),
        ("shared_samples", {"images": torch.ones(7, 3, 32, 32)}, "^tensors: .*'images' has shape"),
        ("shared_samples", {"images": torch.ones(6, 3, 28, 28)}, "^tensors: .*'images' has shape"),
        ("shared_samples", {"images": torch.ones(6, 1, 32, 32)}, "^tensors: .*'images' has shape"),
        ("shared_samples", {"masks": outlines(digits()[0])[:5]}, "^tensors: .*'masks' has shape"),
        (
            "shared_samples",
            {"masks": torch.ones(6, 28, 28).byte()},
            "^tensors: .*'masks' has shape",
        ),
        ("shared_samples", {"masks": torch.ones(6, 32, 32)}, "^tensors: .*'masks' is F32"),
        (
            "shared_samples",
            {"masks": with_value(2)},
            "^values: .*'masks' holds other numbers than 0",
        ),
        ("shared_samples", {"masks": with_value(254)}, "^values: .*'masks'"),
        (
            "shared_samples",
            {"masks": torch.full((6, 32, 32), 255).byte()},
            "^values: .*'masks' .* no label at all",
        ),
        ("shared_samples", {"names": torch.ones(6)}, "^tensors: .*'names' has no place"),
    ],
)
def test_statistics_and_samples_are_what_they_claim(
    submission: Submission, which: str, edit: Tensors, rule: str
) -> None:
    submission.change_blob(which, lambda tensors: tensors.update(edit))
    refused(submission, SchemaError, rule)


# -- refinements -----------------------------------------------------------------------------------


def refinement(
    submission: Submission, spec: AdapterSpec, edit: Tensors | None = None
) -> RefinementManifest:
    tensors = {**Adapter(spec).identity_start().state_dict(), **(edit or {})}
    entry = AdapterEntry(spec=spec, blob=submission.write(tensors))
    return RefinementManifest(site="lab-0", evaluation="e1", adapter=entry)


def channels() -> int:
    return feature_shape(ARCHITECTURE)[0]


@pytest.mark.parametrize(("convs", "kernel"), [(1, 1), (3, 1), (1, 3)])
def test_an_honest_refinement_is_admitted(submission: Submission, convs: int, kernel: Any) -> None:
    spec = AdapterSpec(in_channels=channels(), out_channels=channels(), convs=convs, kernel=kernel)
    shuffled = {"permutation": torch.randperm(channels()), "beta": torch.tensor(0.5)}
    admit(refinement(submission, spec, shuffled), submission.plan, submission.path_of)


@pytest.mark.parametrize(
    ("edit", "kind", "rule"),
    [
        ({"beta": torch.tensor(0.0)}, SchemaError, "^values: adapter: tensor 'beta'"),
        ({"beta": torch.tensor(float("nan"))}, SchemaError, "^finite: adapter: tensor 'beta'"),
        ({"beta": torch.ones(1)}, SchemaError, "^tensors: adapter: tensor 'beta' has shape"),
        ({"permutation": torch.zeros(4, dtype=torch.int64)}, SchemaError, "^values: .*'permutat"),
        ({"permutation": torch.arange(1, 5)}, SchemaError, "^values: .*'permutation'"),
        ({"permutation": torch.arange(4.0)}, SchemaError, "^tensors: .*'permutation' is F32"),
        ({"extra": torch.ones(1)}, SchemaError, "^tensors: .*'extra' has no place"),
        ({"convs.conv1.bias": torch.full((4,), 1e6)}, LimitError, "^norm: .*'convs.conv1.bias'"),
    ],
)
def test_a_refinement_that_lies_is_refused(
    submission: Submission, edit: Tensors, kind: type[RefusedError], rule: str
) -> None:
    spec = AdapterSpec(in_channels=channels(), out_channels=channels())
    admit(refinement(submission, spec), submission.plan, submission.path_of)
    with pytest.raises(kind, match=rule):
        admit(refinement(submission, spec, edit), submission.plan, submission.path_of)


@pytest.mark.parametrize(("taken", "given"), [(4, 5), (5, 4), (8192, 8192)])
def test_an_adapter_for_another_net_is_refused(
    submission: Submission, taken: int, given: int
) -> None:
    small = refinement(submission, AdapterSpec(in_channels=4, out_channels=4))
    claimed = AdapterSpec(in_channels=taken, out_channels=given, convs=8, kernel=3)
    lying = small.model_copy(update={"adapter": small.adapter.model_copy(update={"spec": claimed})})
    with pytest.raises(SchemaError, match=f"^adapter: .*takes {taken} channels to {given}"):
        admit(lying, submission.plan, submission.path_of)


def test_an_adapters_spec_and_weights_agree(submission: Submission) -> None:
    honest = refinement(submission, AdapterSpec(in_channels=4, out_channels=4))
    claimed = AdapterSpec(in_channels=4, out_channels=4, convs=2)
    lying = honest.model_copy(
        update={"adapter": honest.adapter.model_copy(update={"spec": claimed})}
    )
    with pytest.raises(SchemaError, match=r"^tensors: adapter: tensor 'convs\.conv2\.bias' is mis"):
        admit(lying, submission.plan, submission.path_of)


def test_tensors_are_streamed_one_at_a_time(submission: Submission) -> None:
    entry = submission.write({f"t{i}": torch.zeros(1 << 10) for i in range(8)})
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    count = 0
    for _, tensor in safetensors_io.stream(submission.paths[entry.digest], entry):
        alive.add(tensor)
        assert len(alive) == 1
        del tensor
        count += 1
    assert count == 8


def test_a_negative_running_variance_of_batchnorm(tmp_path: Path) -> None:
    architecture = ArchitectureSpec(
        name="small-resnet", settings={"width": 4, "blocks": 3}, split="block1_1"
    )
    category_module, task_modules = initial_modules(architecture, TASKS[:1], seed=0)
    submission = Submission(tmp_path)
    category_entry = submission.write(category_module.state_dict())
    task_entries = {k: submission.write(m.state_dict()) for k, m in task_modules.items()}
    submission.plan = Plan(
        net="digits",
        architecture=architecture,
        tasks=TASKS[:1],
        initial_category_module=category_entry,
        initial_task_modules=task_entries,
    )
    submission.manifest = TeacherManifest(
        site="lab",
        category="zero",
        architecture=architecture,
        category_module=category_entry,
        task_modules=task_entries,
        metrics={f"error/{TASKS[0].name}": 5.0},
        recipe=Recipe(name="supervised"),
        plan=submission.plan.content_digest(),
    )
    submission.admit()
    name = next(name for name in category_entry.tensors if name.endswith("running_var"))
    submission.change_blob("category_module", lambda tensors: tensors[name].fill_(-0.1))
    with pytest.raises(SchemaError, match=r"values: .*running_var.* negative number"):
        submission.admit()
