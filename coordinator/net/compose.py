"""Composes an application's net; only the blobs of its one join are opened."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from rootstock.common.artifacts.store import BlobStore
from rootstock.common.errors import NotFoundError, SchemaError
from rootstock.common.nets.adapter import Adapter
from rootstock.common.nets.architectures import (
    build_category_module,
    build_task_module,
    feature_shape,
    input_shape,
)
from rootstock.common.nets.composed import ComposedNet
from rootstock.common.nets.graph import Edge, ModuleRef, NetTree
from rootstock.common.nets.spec import ArchitectureSpec, TaskSpec, require_fit
from rootstock.common.weights import safetensors_io
from rootstock.common.weights.manifest import BlobEntry

M = TypeVar("M", bound=nn.Module)


def compose(
    tree: NetTree,
    store: BlobStore,
    category: str,
    task: str,
    task_module: nn.Module | None = None,
) -> ComposedNet:
    """Build an application's net, frozen and in evaluation mode, with the adapter of its join.

    `task_module` is g of that task, if it is loaded already: several categories can share it.
    NotFoundError if category and task are not joined, or the store lacks a blob; SchemaError if the
    modules do not fit together or the task; IntegrityError if a blob does not match its digest.
    """
    edge = tree.edge(category, task)
    module, head = tree.category_modules[category], tree.task_modules[task]
    _require_joinable(task_of(tree, task), edge, module.architecture, head.architecture)
    g = task_module_of(tree, store, task) if task_module is None else task_module
    f = loaded(store, build_category_module(module.architecture), module.blob)
    h = edge.adapter
    adapter = None if h is None else loaded(store, Adapter(h.spec), h.blob)
    return ComposedNet(f, adapter, g, edge.calibration).eval().requires_grad_(False)


def task_module_of(tree: NetTree, store: BlobStore, task: str) -> nn.Sequential:
    """Return g of a task of the net with its weights, frozen."""
    head = tree.task_modules[task]
    return loaded_task_module(store, head.architecture, task_of(tree, task), head.blob)


def loaded_task_module(
    store: BlobStore, architecture: ArchitectureSpec, task: TaskSpec, blob: BlobEntry
) -> nn.Sequential:
    """Return a task module of any origin with its weights, frozen."""
    return loaded(store, build_task_module(architecture, task), blob)


def loaded(store: BlobStore, module: M, blob: BlobEntry, device: torch.device | str = "cpu") -> M:
    """Load a module's weights out of a store, frozen; see `load_frozen`."""
    return safetensors_io.load_frozen(module, store.local_path(blob.digest), blob, device)


def category_module_of(tree: NetTree, category: str) -> ModuleRef:
    """Return a category module of the net; NotFoundError if the net has none of that name."""
    if category not in tree.category_modules:
        known = ", ".join(sorted(tree.category_modules)) or "none"
        raise NotFoundError(f"the net has no category '{category}'; it has: {known}")
    return tree.category_modules[category]


def task_of(tree: NetTree, name: str) -> TaskSpec:
    """Return a task of the net; NotFoundError if the net has no module for it."""
    if name not in tree.task_modules:
        known = ", ".join(sorted(tree.task_modules)) or "none"
        raise NotFoundError(f"the net has no task module '{name}'; it has: {known}")
    return next(task for task in tree.tasks if task.name == name)


def _require_joinable(
    task: TaskSpec, edge: Edge, below: ArchitectureSpec, above: ArchitectureSpec
) -> None:
    join = f"the join {edge.category} → {task.name}"
    spec = None if edge.adapter is None else edge.adapter.spec
    require_fit(join, feature_shape(below), feature_shape(above), spec)
    image, scored = input_shape(below)[1:], input_shape(above)[1:]
    if task.kind == "binary-segmentation" and image != scored:
        raise SchemaError(
            f"{join}: the task module scores {scored[0]}×{scored[1]} pixels, the category module "
            f"takes images of {image[0]}×{image[1]}; join modules of one input size"
        )
