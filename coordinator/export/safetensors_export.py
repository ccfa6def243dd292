"""A composed net as one safetensors file and a card; nothing of Rootstock's store is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.artifacts.store import BlobStore
from common.errors import NotFoundError, SchemaError
from common.files import storage_errors, write_bytes
from common.nets.architectures import input_shape
from common.nets.composed import ComposedNet
from common.nets.graph import NetTree
from common.weights import safetensors_io
from coordinator.export.card import HOW_TO_LOAD, Card, card_path, source_digests
from coordinator.export.composing import blank, compose, task_of

MAX_CARD_BYTES = 1 << 20


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
        task=task_of(tree, task),
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
    net = blank(
        card.category_architecture,
        card.task_architecture,
        card.task,
        card.adapter,
        card.calibration,
    )
    safetensors_io.load_module(net, path, card.blob)
    return net
