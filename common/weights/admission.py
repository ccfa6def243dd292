"""The admission checks: a list of named checks on all that a lab ships, cheapest first.

Checks of the manifest come first and read no file; then the headers; then every tensor is
streamed once, one in memory at a time, through the checks of contents. A refusal starts with the
check's name and says the value and the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from rootstock.common.errors import LimitError, NotFoundError, RefusedError, SchemaError
from rootstock.common.nets import feature_moments
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    input_shape,
    measured_layers,
)
from rootstock.common.nets.spec import Shape
from rootstock.common.protocol import NO_LABEL, Limits, Plan
from rootstock.common.weights.manifest import (
    BlobEntry,
    Manifest,
    RefinementManifest,
    TeacherManifest,
)
from rootstock.common.weights.safetensors_io import read_header, require_entry, stream
from rootstock.common.weights.salt import salted_shape
from rootstock.common.weights.schema import Layout, layout, require_layout

MAX_NORM = 1e6
"""Cap on ‖tensor‖_F. VGG-16's largest trained tensor has about 100; a net that needs more than
this is broken, and would drown the other categories' adapters."""

PathOf = Callable[[str], Path]


class Part(NamedTuple):
    """One blob of a manifest."""

    role: Literal["module", "statistics", "samples", "adapter"]
    what: str
    """How errors name it."""
    entry: BlobEntry
    expected: Layout


class Content(NamedTuple):
    """The input of the checks of contents: one tensor of one blob."""

    part: Part
    name: str
    tensor: Tensor
    norm: float
    """‖tensor‖_F, in float64; 0 for whole numbers."""

    def __str__(self) -> str:
        return f"{self.part.what}: tensor '{self.name}'"


def admit(manifest: Manifest, plan: Plan, path_of: PathOf) -> None:
    """Let a manifest and its files in, or say why not: a refusal starts with the check's name.

    The manifest's signature has been verified. `path_of` gives a blob's local file by digest, and
    may raise `NotFoundError`.
    """
    blobs = [(part, _path(part, path_of)) for part in admit_manifest(manifest, plan)]
    for part, path in blobs:
        with _named("header"):
            header = read_header(path, limits=plan.limits)
            require_entry(header, part.entry, size=path.stat().st_size, what=part.what)
    for part, path in blobs:
        _check_contents(part, path, plan.limits)


def admit_manifest(manifest: Manifest, plan: Plan) -> list[Part]:
    """Check a manifest alone, without reading a file; return the blobs that it must come with."""
    for name, check in MANIFEST_CHECKS:
        with _named(name):
            check(manifest, plan)
    blobs = _parts(manifest, plan)
    for part in blobs:
        with _named("tensors"):
            require_layout(part.expected, part.entry, what=part.what)
    return blobs


@contextmanager
def _named(check: str) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise type(error)(f"{check}: {error}") from error


def _path(part: Part, path_of: PathOf) -> Path:
    try:
        return path_of(part.entry.digest)
    except NotFoundError as error:
        raise SchemaError(
            f"blobs: {part.what} {part.entry.digest} has not come: {error}"
        ) from error


# -- the blobs of a manifest, and what each must hold -------------------------------------------


def _parts(manifest: Manifest, plan: Plan) -> list[Part]:
    """Return the blobs of a manifest whose architecture and tasks are known.

    Modules are built on the meta device: names and shapes, and not a byte of weights.
    """
    if isinstance(manifest, RefinementManifest):
        with torch.device("meta"):
            expected = layout(Adapter(manifest.adapter.spec))
        return [Part("adapter", "adapter", manifest.adapter.blob, expected)]
    return list(_teacher_parts(manifest, plan))


def _teacher_parts(manifest: TeacherManifest, plan: Plan) -> Iterator[Part]:
    tasks = {task.name: task for task in plan.tasks}
    spec = manifest.architecture
    with torch.device("meta"):
        category_module = build_category_module(spec)
        task_modules = {n: build_task_module(spec, tasks[n]) for n in manifest.task_modules}
    yield Part("module", "category module", manifest.category_module, layout(category_module))
    for name, entry in manifest.task_modules.items():
        yield Part("module", f"task module '{name}'", entry, layout(task_modules[name]))
    if manifest.statistics is not None:
        known = _statistics_layout(category_module, feature_shape(spec), *task_modules.values())
        # Each statistic can be switched off: only those that are there are expected.
        listed = {
            name: _perhaps_salted(known[name], tensor.shape)
            for name, tensor in manifest.statistics.tensors.items()
            if name in known
        }
        yield Part("statistics", "statistics", manifest.statistics, listed)
    if manifest.shared_samples is not None:
        samples = manifest.shared_samples
        masks = any(tasks[n].kind == "binary-segmentation" for n in manifest.task_modules)
        count, shape = samples.count, input_shape(spec)
        expected = {"images": ("F32", (count, *shape)), "labels": ("F32", (count,))}
        if masks:
            expected["masks"] = ("U8", (count, *shape[1:]))
        yield Part("samples", "shared samples", samples.blob, expected)


def _statistics_layout(
    category_module: nn.Sequential, shape: Shape, *task_modules: nn.Module
) -> Layout:
    known: Layout = {"feature_norm": ("F32", (1,))}
    known |= {name: ("F32", each) for name, each in feature_moments.layout(shape).items()}
    for name, layer in measured_layers(category_module, *task_modules).items():
        count = layer.out_channels if isinstance(layer, nn.Conv2d) else shape[0]
        known |= {f"{statistic}/{name}": ("F32", (count,)) for statistic in ("mean", "variance")}
    return known


def _perhaps_salted(
    expected: tuple[str, tuple[int, ...]], given: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    dtype, shape = expected
    salted = salted_shape(shape[0])
    return (dtype, salted) if len(shape) == 1 and given == salted else expected


# -- checks of the manifest ---------------------------------------------------------------------


def _architecture_is_known(manifest: Manifest, _: Plan) -> None:
    if isinstance(manifest, TeacherManifest):
        input_shape(manifest.architecture)


def _architecture_is_planned(manifest: Manifest, plan: Plan) -> None:
    # Any extractor may stand below the plan's task modules: "architecture" has seen that it fits.
    if isinstance(manifest, TeacherManifest) and manifest.architecture.above() != plan.architecture:
        raise SchemaError(
            f"the teacher is {manifest.architecture.above().canonical().decode()}, the plan asks "
            f"for {plan.architecture.canonical().decode()}; fetch the plan and train anew"
        )


def _tasks_are_known(manifest: Manifest, plan: Plan) -> None:
    if isinstance(manifest, TeacherManifest):
        for name in manifest.task_modules:
            if plan.task(name) is None:
                known = ", ".join(task.name for task in plan.tasks)
                raise SchemaError(f"the net has no task '{name}'; its tasks: {known}")


def _sizes_are_allowed(manifest: Manifest, plan: Plan) -> None:
    for entry in manifest.blobs():
        if entry.size > plan.limits.max_blob_bytes:
            raise LimitError(
                f"blob {entry.digest} has {entry.size} bytes, the plan's limit is "
                f"{plan.limits.max_blob_bytes}"
            )
    samples = manifest.shared_samples if isinstance(manifest, TeacherManifest) else None
    if samples is not None and samples.count > plan.limits.max_shared_samples:
        raise LimitError(
            f"{samples.count} shared samples, the plan's limit is "
            f"{plan.limits.max_shared_samples}; set share_samples to that or less"
        )


def _metrics_are_sound(manifest: Manifest, _: Plan) -> None:
    if not isinstance(manifest, TeacherManifest):
        return
    for task in manifest.task_modules:
        if f"error/{task}" not in manifest.metrics:
            raise SchemaError(f"'error/{task}' is missing; evaluate the teacher on validation data")
    for name, value in manifest.metrics.items():
        for prefix, what in (("error/", "an error"), ("mean_iou/", "a mean IoU")):
            if name.startswith(prefix) and not 0 <= value <= 100:
                raise SchemaError(f"'{name}' = {value:g}; {what} is 0 to 100 percent")
        if name.startswith("samples/") and (value < 0 or value != math.floor(value)):
            raise SchemaError(f"'{name}' = {value:g}; a count is a whole number, 0 or more")


def _adapter_fits_the_net(manifest: Manifest, plan: Plan) -> None:
    if isinstance(manifest, RefinementManifest):
        channels = feature_shape(plan.architecture)[0]
        spec = manifest.adapter.spec
        if (spec.in_channels, spec.out_channels) != (channels, channels):
            raise SchemaError(
                f"the adapter takes {spec.in_channels} channels to {spec.out_channels}; at the "
                f"plan's split, '{plan.architecture.split}', there are {channels}"
            )


MANIFEST_CHECKS: tuple[tuple[str, Callable[[Manifest, Plan], None]], ...] = (
    ("architecture", _architecture_is_known),
    ("plan", _architecture_is_planned),
    ("task", _tasks_are_known),
    ("size", _sizes_are_allowed),
    ("metrics", _metrics_are_sound),
    ("adapter", _adapter_fits_the_net),
)


# -- checks of contents -------------------------------------------------------------------------


def _check_contents(part: Part, path: Path, limits: Limits) -> None:
    tensors = stream(path, part.entry, limits=limits)
    while True:
        with _named("digest"):
            item = next(tensors, None)
        if item is None:
            return
        name, tensor = item
        content = Content(part, name, tensor, _norm(tensor))
        for check, rule in TENSOR_CHECKS:
            with _named(check):
                rule(content)
        del item, tensor, content  # before the next one is read


def _norm(tensor: Tensor) -> float:
    if not tensor.is_floating_point():
        return 0.0
    # In float64 the norm of float32 numbers is finite exactly if all of them are: one pass,
    # and no mask of the tensor's size.
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _is_finite(content: Content) -> None:
    if not math.isfinite(content.norm):
        finite = torch.isfinite(content.tensor)
        raise SchemaError(
            f"{content} holds {int((~finite).sum())} numbers that are NaN or Inf; every number "
            "must be finite: look at the training's learning rate"
        )


def _norm_is_capped(content: Content) -> None:
    if content.norm > MAX_NORM:
        raise LimitError(
            f"{content} has norm {content.norm:.3g}, the limit is {MAX_NORM:g}; use weight decay "
            "or a lower learning rate"
        )


def _values_make_sense(content: Content) -> None:
    # Modules' names are dotted paths, whose last part says what it is; others start with that.
    name = content.name
    kind = name.rpartition(".")[2] if content.part.role == "module" else name.partition("/")[0]
    rule = _VALUES.get((content.part.role, kind))
    if rule is not None and not rule[0](content.tensor):
        raise SchemaError(f"{content} {rule[1]}")


_Rule = tuple[Callable[[Tensor], bool], str]
_VARIANCE: _Rule = (
    lambda t: bool((t >= 0).all()),
    "holds a negative number; a variance is 0 or more",
)
_COVARIANCE: _Rule = (
    lambda t: (
        bool((t.diagonal() >= 0).all())
        and bool(((t - t.T).abs() <= 1e-3 * t.diagonal().mean()).all())
    ),
    "is no covariance: it is not symmetric, or has a negative number on its diagonal",
)
_VALUES: dict[tuple[str, str], _Rule] = {
    ("module", "running_var"): _VARIANCE,
    ("statistics", "variance"): _VARIANCE,
    **{("statistics", name): _COVARIANCE for name in feature_moments.COVARIANCES},
    ("statistics", "feature_norm"): (
        lambda t: bool((t > 0).all()),
        "is not above 0; the mean norm of the features of real images is",
    ),
    ("samples", "labels"): (
        lambda t: bool(((t == 0) | (t == 1)).all()),
        "holds other numbers than 0 (the rest) and 1 (the category)",
    ),
    ("samples", "masks"): (
        lambda t: bool(((t <= 1) | (t == NO_LABEL)).all()) and bool((t != NO_LABEL).any()),
        f"holds other numbers than 0 (the rest), 1 (the category) and {NO_LABEL} (no label), or no "
        "label at all",
    ),
    ("adapter", "beta"): (
        lambda t: bool((t > 0).all()),
        "is not above 0; the rescale layer's β is",
    ),
    ("adapter", "permutation"): (
        lambda t: torch.equal(torch.sort(t).values, torch.arange(len(t))),
        "does not hold each channel exactly once",
    ),
}
"""Rules for single tensors, by the blob's role and what the tensor's name says it is."""

TENSOR_CHECKS: tuple[tuple[str, Callable[[Content], None]], ...] = (
    ("finite", _is_finite),
    ("norm", _norm_is_capped),
    ("values", _values_make_sense),
)
