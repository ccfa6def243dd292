"""The blobs that a manifest comes with, and what each of them must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import nn

from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    input_shape,
    measured_layers,
)
from rootstock.common.protocol import Plan
from rootstock.common.weights.manifest import (
    BlobEntry,
    Manifest,
    RefinementManifest,
    SharedSamples,
    TeacherManifest,
)
from rootstock.common.weights.schema import Layout, layout


class Part(NamedTuple):
    """One blob of a manifest."""

    role: Literal["module", "statistics", "samples", "adapter"]
    what: str
    """How errors name it."""
    entry: BlobEntry
    expected: Layout


def parts(manifest: Manifest, plan: Plan) -> list[Part]:
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
        known = _statistics_layout(
            category_module, feature_shape(manifest.architecture)[0], *task_modules.values()
        )
        # Each statistic can be switched off: only those that are there are expected.
        listed = {name: known[name] for name in manifest.statistics.tensors if name in known}
        yield Part("statistics", "statistics", manifest.statistics, listed)
    if manifest.shared_samples is not None:
        samples = manifest.shared_samples
        masks = any(tasks[n].kind == "binary-segmentation" for n in manifest.task_modules)
        expected = _samples(manifest, samples, masks=masks)
        yield Part("samples", "shared samples", samples.blob, expected)


def _samples(manifest: TeacherManifest, samples: SharedSamples, *, masks: bool) -> Layout:
    count, shape = samples.count, input_shape(manifest.architecture)
    layout: Layout = {"images": ("F32", (count, *shape)), "labels": ("F32", (count,))}
    return layout | {"masks": ("U8", (count, *shape[1:]))} if masks else layout


def _statistics_layout(
    category_module: nn.Sequential, channels: int, *task_modules: nn.Module
) -> Layout:
    known: Layout = {"feature_norm": ("F32", (1,))}
    for name, layer in measured_layers(category_module, *task_modules).items():
        count = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
        known |= {f"{statistic}/{name}": ("F32", (count,)) for statistic in ("mean", "variance")}
    return known
