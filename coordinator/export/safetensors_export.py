"""A composed net as one safetensors file and a card; nothing of Rootstock's store is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from common.artifacts.store import BlobStore
from common.errors import NotFoundError, SchemaError
from common.files import storage_errors, write_bytes
from common.nets.adapter import Adapter
from common.nets.architectures import build_category_module, build_task_module, input_shape
from common.nets.calibration import Calibration
from common.nets.composed import ComposedNet
from common.nets.graph import NetTree
from common.nets.spec import AdapterSpec, ArchitectureSpec, TaskSpec
from common.weights import safetensors_io
from coordinator.export.card import HOW_TO_LOAD, Card, card_path, source_digests

MAX_CARD_BYTES = 1 << 20


def compose(tree: NetTree, store: BlobStore, category: str, task: str) -> ComposedNet:
    """Build an application's net out of a transplant net, ready for inference.

    Raises
    ------
    NotFoundError
        If category and task are not joined, or the store lacks a blob.
    IntegrityError
        If a blob does not match its digest.
    """
    edge = tree.edge(category, task)
    module, head = tree.category_modules[category], tree.task_modules[task]
    spec = None if edge.adapter is None else edge.adapter.spec
    net = _blank(module.architecture, head.architecture, _task(tree, task), spec, edge.calibration)
    parts: list[tuple[nn.Module, Any]] = [
        (net.category_module, module.blob),
        (net.task_module, head.blob),
    ]
    if edge.adapter is not None:
        parts.append((net.adapter, edge.adapter.blob))
    for part, entry in parts:
        safetensors_io.load_module(part, store.local_path(entry.digest), entry)
    return net


def export_composed(
    tree: NetTree, store: BlobStore, category: str, task: str, out: Path
) -> dict[str, Any]:
    """Write a composed net to a file, and its card beside it.

    Parameters
    ----------
    tree, store
        The net and where its blobs are.
    category, task
        Which two modules; the adapter that joins them comes along.
    out
        The safetensors file; the card is `out` with the suffix `.card.json`.

    Returns
    -------
    dict
        The card as JSON values.

    Raises
    ------
    NotFoundError
        If category and task are not joined; says which are.
    StorageError
        If the disk is full or read-only.
    """
    digests = source_digests(tree, category, task)
    net = compose(tree, store, category, task)
    module, edge = tree.category_modules[category], tree.edge(category, task)
    card = Card(
        category=category,
        task=_task(tree, task),
        category_architecture=module.architecture,
        task_architecture=tree.task_modules[task].architecture,
        input_shape=input_shape(module.architecture),
        adapter=None if edge.adapter is None else edge.adapter.spec,
        calibration=edge.calibration,
        error=edge.error,
        digests=digests,
        blob=safetensors_io.write(out, net.state_dict()),
        how_to_load=HOW_TO_LOAD.format(file=out.name),
    )
    write_bytes(card_path(out), card.model_dump_json(indent=2).encode() + b"\n")
    return card.model_dump(mode="json")


def load_composed(path: Path) -> ComposedNet:
    """Read an exported net back, every byte checked against its card.

    Raises
    ------
    NotFoundError
        If the file or its card is missing.
    SchemaError, IntegrityError
        If either is not what was exported.
    """
    beside = card_path(path)
    try:
        with storage_errors(beside), beside.open("rb") as file:
            data = file.read(MAX_CARD_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{beside}: there is no such file; an exported net is two files, copy both"
        ) from error
    if len(data) > MAX_CARD_BYTES:
        raise SchemaError(f"{beside}: has more than {MAX_CARD_BYTES} bytes; it is no card")
    card = Card.parse(data, what=f"card {beside}")
    net = _blank(
        card.category_architecture,
        card.task_architecture,
        card.task,
        card.adapter,
        card.calibration,
    )
    safetensors_io.load_module(net, path, card.blob)
    return net


def _blank(
    category: ArchitectureSpec,
    head: ArchitectureSpec,
    task: TaskSpec,
    spec: AdapterSpec | None,
    calibration: Calibration,
) -> ComposedNet:
    adapter = None if spec is None else Adapter(spec)
    f, g = build_category_module(category), build_task_module(head, task)
    net = ComposedNet(f, adapter, g, calibration)
    return net.eval().requires_grad_(False)


def _task(tree: NetTree, name: str) -> TaskSpec:
    return next(task for task in tree.tasks if task.name == name)
