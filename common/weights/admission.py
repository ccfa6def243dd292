"""The one gate: what a lab ships is held against a list of named checks, cheapest first.

Checks of the manifest come first and read no file; then the headers; then every tensor is
streamed once, one in memory at a time, through the checks of contents. A refusal starts with the
check's name and says the value and the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from common.errors import LimitError, NotFoundError, RefusedError, SchemaError
from common.nets.architectures import feature_shape, input_shape
from common.plan import Limits, Plan
from common.weights.manifest import Manifest, RefinementManifest, TeacherManifest
from common.weights.parts import Part, parts
from common.weights.safetensors_io import read_header, require_entry, stream
from common.weights.schema import require_layout

MAX_NORM = 1e6
"""Cap on ‖tensor‖_F. VGG-16's largest trained tensor has about 100; a net that needs more than
this is broken, and would drown the other categories' adapters."""

PathOf = Callable[[str], Path]
ManifestCheck = Callable[[Manifest, Plan], None]
TensorCheck = Callable[[Part, str, Tensor, float], None]


def admit(manifest: Manifest, plan: Plan, path_of: PathOf) -> None:
    """Let a manifest and its files in, or say why not.

    Parameters
    ----------
    manifest
        Whose signature has been verified.
    plan
        What the coordinator asks for.
    path_of
        Local file of a blob by digest; may raise `NotFoundError`.

    Raises
    ------
    SchemaError
        Checks "architecture", "plan", "task", "metrics", "adapter", "tensors", "blobs",
        "header", "finite", "values".
    LimitError
        Checks "size", "header", "norm".
    IntegrityError
        Check "digest".
    """
    for name, check in MANIFEST_CHECKS:
        with _named(name):
            check(manifest, plan)
    brought = parts(manifest, plan)
    for part in brought:
        with _named("tensors"):
            require_layout(part.expected, part.entry, what=part.what)
    paths = [_path(part, path_of) for part in brought]
    for part, path in zip(brought, paths, strict=True):
        with _named("header"):
            header = read_header(path, limits=plan.limits)
            require_entry(header, part.entry, size=path.stat().st_size, path=Path(part.what))
    for part, path in zip(brought, paths, strict=True):
        _check_contents(part, path, plan.limits)


@contextmanager
def _named(check: str) -> Iterator[None]:
    """Put a check's name before its refusals."""
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


# -- checks of the manifest ---------------------------------------------------------------------


def _architecture_is_known(manifest: Manifest, plan: Plan) -> None:
    if isinstance(manifest, TeacherManifest):
        input_shape(manifest.architecture)


def _architecture_is_planned(manifest: Manifest, plan: Plan) -> None:
    if isinstance(manifest, TeacherManifest) and manifest.architecture != plan.architecture:
        raise SchemaError(
            f"the teacher is {manifest.architecture.canonical().decode()}, the plan asks for "
            f"{plan.architecture.canonical().decode()}; fetch the plan and train anew"
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


def _metrics_are_sound(manifest: Manifest, plan: Plan) -> None:
    if not isinstance(manifest, TeacherManifest):
        return
    for task in manifest.task_modules:
        if f"error/{task}" not in manifest.metrics:
            raise SchemaError(f"'error/{task}' is missing; evaluate the teacher on validation data")
    for name, value in manifest.metrics.items():
        if name.startswith("error/") and not 0 <= value <= 100:
            raise SchemaError(f"'{name}' = {value:g}; an error is 0 to 100 percent")
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


MANIFEST_CHECKS: tuple[tuple[str, ManifestCheck], ...] = (
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
        # In float64 the norm of float32 numbers is finite exactly if all of them are: one pass
        # without a mask of the tensor's size.
        norm = _norm(tensor) if tensor.is_floating_point() else 0.0
        for check, rule in TENSOR_CHECKS:
            with _named(check):
                rule(part, name, tensor, norm)
        del item, tensor  # before the next one is read


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def _is_finite(part: Part, name: str, tensor: Tensor, norm: float) -> None:
    if not math.isfinite(norm):
        count = sum(int((~block.isfinite()).sum()) for block in tensor.reshape(-1).split(1 << 20))
        raise SchemaError(
            f"{part.what}: tensor '{name}' holds {count} numbers that are NaN or Inf; every "
            "number must be finite: look at the training's learning rate"
        )


def _norm_is_capped(part: Part, name: str, tensor: Tensor, norm: float) -> None:
    if norm > MAX_NORM:
        raise LimitError(
            f"{part.what}: tensor '{name}' has norm {norm:.3g}, the limit is {MAX_NORM:g}; use "
            "weight decay or a lower learning rate"
        )


def _values_make_sense(part: Part, name: str, tensor: Tensor, norm: float) -> None:
    problem = None
    if part.role == "statistics" and not name.startswith("mean/") and bool((tensor < 0).any()):
        problem = f"is {float(tensor.min()):g} somewhere; a variance or a norm is never negative"
    elif part.role == "samples" and name == "labels":
        if not bool(((tensor == 0) | (tensor == 1)).all()):
            problem = "holds other numbers than 0 (the rest) and 1 (the category)"
    elif part.role == "adapter" and name == "beta":
        if not float(tensor) > 0:
            problem = f"is {float(tensor):g}; the rescale layer's β is above 0"
    elif part.role == "adapter" and name == "permutation":
        if not torch.equal(tensor.sort().values, torch.arange(len(tensor))):
            problem = f"does not hold each of the {len(tensor)} channels exactly once"
    if problem is not None:
        raise SchemaError(f"{part.what}: tensor '{name}' {problem}")


TENSOR_CHECKS: tuple[tuple[str, TensorCheck], ...] = (
    ("finite", _is_finite),
    ("norm", _norm_is_capped),
    ("values", _values_make_sense),
)
